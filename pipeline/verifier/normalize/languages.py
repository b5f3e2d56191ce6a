"""Words around a number that change it, in the languages in which an answer can be announced.

Chinese, Japanese and Korean words stand directly beside the number, others with a blank between.
"""

import re
from functools import lru_cache

_MARKS = r"[\s*_${}\\]"
_MINUS = r"minus|negative|moins|menos|meno|минус"
_MINUS_ASIAN = r"负|負|マイナス|마이너스|零下|氷点下|영하"
_SIGN = re.compile(
    rf"(?:^|(?<=[=(,])|(?<=[=(,] ))(?:(?:{_MINUS})\s+|(?:{_MINUS_ASIAN})\s*)(?=[$€£¥₹]?[0-9.\\])", re.IGNORECASE
)
_ENDS_IN_A_SIGN = re.compile(
    rf"(?<![0-9] )(?<![^\W\d_])(?:{_MINUS}){_MARKS}+$|(?:{_MINUS_ASIAN}){_MARKS}*$", re.IGNORECASE
)
_BELOW = (
    r"\s+(?:below zero|unter null|(?:sous|au-dessous de|en dessous de) zéro|bajo cero|abaixo de zero"
    r"|sotto (?:lo )?zero|ниже нуля)"
)
_BELOW_ZERO = re.compile(rf"([0-9][^=<>]*?){_BELOW}", re.IGNORECASE)
_NEXT_BELOW_ZERO = re.compile(rf"[*$]*(?:\s*(?:[^\W\d_]+|°[CF]?))?{_BELOW}\b", re.IGNORECASE)
_BOUNDS = (
    r"at (?:least|most)|max\.?|mindestens|höchstens|maximal|minimal|au (?:moins|plus)|(?:al|por lo|pelo) menos"
    r"|(?:como|no) (?:máximo|mínimo)|a lo sumo|almeno|al (?:massimo|minimo|più|meno)|(?:как )?минимум|максимум"
)
_BOUNDS_ASIAN = r"至[少多]|最[多少]|少なくとも|多くとも|最[大小]で?|最低でも?|적어도|많아야|최[소대]"
_BEFORE = (
    r"(?:more|less|fewer|greater|larger|smaller|bigger|higher|lower) than(?: or equal to)?|exceed(?:s|ing)?"
    r"|all (?:but|except)|anything but|other than|multiples? of|half of"
    r"|(?:wrong|incorrect|false) (?:final )?answers? (?:is|are|was|would be)",
    r"nicht|keine?|(?:mehr|weniger|größer|kleiner|höher|niedriger) als|alle außer|doppelt|zweimal|über|unter"
    r"|(?:hälfte|doppelte|vielfache[ns]?) von",
    r"pas|plus (?:grande? |petite? )?(?:de|que)|moins (?:de|que)|(?:supérieure?|inférieure?)s? à|sauf"
    r"|(?:moitié|double|multiples?) de",
    r"no (?:es|son)|(?:más|menos) (?:de|que)|(?:mayor|menor)(?:es)? (?:que|a)|(?:mitad|doble|múltiplos?) de|todos menos"
    r"|excepto",
    r"não(?: é| são)?|(?:mais|maior|maiores|menor|menores) (?:de|que|do que)|menos do que|(?:metade|dobro) de|exceto",
    r"non(?: è| sono)?|(?:più|meno|maggiore|minore) di|più grande di|(?:metà|doppio|multipl[io]) di|tranne",
    r"не|(?:больше|меньше|более|менее)(?: чем)?|свыше|половин[аыу](?: от)?|кратн\w+|кроме",
)
_BEFORE_ASIAN = r"不是|不等[于於]|[并並]?非|不|[大小多少高低][于於](?:或?等[于於])?|超[过過]|不足|除了"
_DENIED_BEFORE = re.compile(
    rf"(?:(?<![^\W\d_])(?:{'|'.join(_BEFORE)}){_MARKS}+|(?:{_BEFORE_ASIAN}){_MARKS}*)$", re.IGNORECASE
)
_BOUNDED_BEFORE = re.compile(rf"(?:(?<![^\W\d_])(?:{_BOUNDS}){_MARKS}+|(?:{_BOUNDS_ASIAN}){_MARKS}*)$", re.IGNORECASE)
_AFTER = (
    r"at (?:least|most)|or (?:more|less|fewer|greater|higher|lower|above|below)|(?<!the )max(?:imum)?\W*$",
    r"in (?:hundreds|thousands|millions|billions|dozens)",
    r"(?:is|was) (?:wrong|incorrect|false|not (?:the )?(?:correct|right|true|answer))|\((?:wrong|incorrect|false)\)",
    r"oder (?:mehr|weniger)|mindestens|höchstens|maximal",
    r"ou (?:plus|moins)|au (?:moins|plus|maximum|minimum)",
    r"o (?:más|menos)|como (?:máximo|mínimo)|(?:al|por lo|pelo) menos",
    r"ou (?:mais|menos)|no (?:máximo|mínimo)",
    r"o (?:più|meno)|al (?:massimo|minimo)|almeno",
    r"(?:или|и) (?:больше|меньше|более|менее)|максимум|минимум",
)
_AFTER_ASIAN = (
    r"以上|以下|以内|以外|未[満满]|では?(?:ない|なく|ありません)|じゃない|不[是对對]|より|を超"
    r"|[的の](?:倍数|倍數|一半|半分)|이상|이하|미만|초과|아니|아닙|아닌|보다|의 ?(?:배수|절반)"
)
_CHANGED_AFTER = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(_AFTER)})(?!\w)|{_AFTER_ASIAN}", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"(?:(?:is|was|ist|est|n'est|es|é|è) )?(?:wrong|incorrect|false|falsch|faux|fausse|incorrect[oa]|incorret[oa]"
    r"|errad[oa]|sbagliat[oa]|неверно|(?:not|nicht|pas|não|non|не|no es|não é|non è)"
    r" (?:correcte?|right|true|richtig|korrekt|juste|correct[oa]|corret[oa]|corrett[oa]|верно|правильно))"
    r"|是?[错錯][误誤]?的?",
    re.IGNORECASE,
)
_DIRECTLY_AFTER = re.compile(
    rf"[\s*_$}})(]*(?:[^\W\d_]+\s+)?(?:{_CHANGED_AFTER.pattern}|(?:{_DENIED_AFTER.pattern})\W*$)", re.IGNORECASE
)
_FIRST_NUMBER = re.compile(r"[^0-9]{1,60}(?=[0-9])")
_SCALES = {
    r"hundreds?|hundert": 100,
    r"thousands?|tausend|mil|mille|mila|тысяч[аиу]?|тыс\.?": 10**3,
    r"lakhs?": 10**5,
    r"millions?|millionen|mio\.?|millón|millones|milhão|milhões|milione|milioni|миллион(?:а|ов)?|млн\.?": 10**6,
    r"crores?": 10**7,
    r"billions?|milliarden?|mrd\.?|milliards?|bilhão|bilhões|miliard[oi]|миллиард(?:а|ов)?|млрд\.?": 10**9,
    r"trillions?|billionen|billón|billones|триллион(?:а|ов)?": 10**12,
    r"dozens?|dutzend|douzaines?|docenas?|dúzias?|dozzin[ae]|дюжин[аы]?": 12,
    r"score|vingtaines?": 20,
    r"gross": 144,
}
_ASIAN_SCALES = {
    r"百(?!分)|백": 100,
    r"千(?![米克瓦卡])|천": 10**3,
    r"[万萬만]": 10**4,
    r"[亿億억]": 10**8,
    r"兆|조(?![^\W\d_])": 10**12,
    r"ダース": 12,
}
_SIZES = (*_SCALES.values(), *_ASIAN_SCALES.values())
_SCALE = re.compile(
    "".join(
        (
            "|".join(rf"({words})(?!\w)\s*" for words in _SCALES),
            "|",
            "|".join(rf"({words})\s*" for words in _ASIAN_SCALES),
        )
    )
)
NO_SOLUTION = (
    "no solution exists", "no solutions exist", "no real solution exists", "keine lösung", "es gibt keine lösung",
    "pas de solution", "aucune solution", "sin solución", "no hay solución", "no tiene solución", "sem solução",
    "não há solução", "nessuna soluzione", "нет решений", "нет решения", "решений нет", "无解", "無解", "没有解",
    "解なし", "해가 없다", "해 없음", "해가 없음",
)  # fmt: skip
PERCENT = (
    "prozent", "pour cent", "pourcent", "por ciento", "por cento", "per cento", "процент", "процента", "процентов",
    "パーセント", "퍼센트",
)  # fmt: skip
_LIST_END = re.compile(r"((?:-?[0-9./]+, )+-?[0-9./]+),? (?:et|und|y|e|ed|и) (-?[0-9./]+)", re.IGNORECASE)


def in_signs(text: str) -> str:
    """Words for signs as signs: ``moins 5`` and ``5 below zero`` are ``-5``, ``1, 2 et 3`` is ``1, 2 and 3``."""
    if not text[:1].isdigit() and (text[:1].isalpha() or "=" in text or "," in text):
        text = _SIGN.sub("-", text)
    if text[-1:].isalpha() and (below := _BELOW_ZERO.fullmatch(text)):
        return f"-{below[1]}"
    if text.endswith(" gross") and text.startswith(("$", "€", "£")):
        return text.removesuffix(" gross")  # before taxes, not 144
    if "," in text and (listed := _LIST_END.fullmatch(text)):
        return f"{listed[1]} and {listed[2]}"
    return text


def ends_in_a_sign(before: str) -> bool:
    """True if the text before a number ends in a word for minus."""
    return bool(_ENDS_IN_A_SIGN.search(before))


def is_below_zero(after: str) -> bool:
    """True if the text after a number, or after its unit, begins with "below zero"."""
    return bool(_NEXT_BELOW_ZERO.match(after))


def denies_next_number(before: str) -> bool:
    """True if text ends in words that deny the number after them, or compare with it: ``nicht``, "more than"."""
    return bool(_DENIED_BEFORE.search(before))


@lru_cache(4096)
def changes_next_number(before: str) -> bool:
    """The same, or in words that bound it: "at least", ``至少``."""
    return denies_next_number(before) or bool(_BOUNDED_BEFORE.search(before))


def begins_with_a_bound(answer: str) -> bool:
    """True if nothing but such a bound stands before the first number."""
    first = _FIRST_NUMBER.match(answer)
    bound = first and _BOUNDED_BEFORE.search(first[0])
    return bool(bound and bound.start() == 0)


def changes_last_number(after: str) -> bool:
    """True if the text after a number begins with such words, at most one word away: "72 days at most", ``以上``."""
    return bool(_DIRECTLY_AFTER.match(after))


def changes_first_number(answer: str) -> bool:
    """True if an answer begins with words that deny or bound its number."""
    first = None if answer[:1].isdigit() else _FIRST_NUMBER.match(answer)
    return bool(first and changes_next_number(first[0]))


def is_about_the_number(unit: str) -> bool:
    """True if words after a number deny or bound it, and so are no unit."""
    return bool(_CHANGED_AFTER.search(unit) or _DENIED_AFTER.fullmatch(unit))


@lru_cache(4096)
def take_scale(text: str) -> tuple[int, str]:
    """``million dollars`` -> (1000000, ``dollars``)."""
    scale = 1
    while match := _SCALE.match(text):
        scale *= _SIZES[(match.lastindex or 1) - 1]
        text = text[match.end() :]
    return scale, text
