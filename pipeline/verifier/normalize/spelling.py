"""One spelling for what LaTeX, Unicode and Markdown write in several ways. Text in, text out, in linear time."""

import re
import unicodedata

from pipeline.verifier.normalize.languages import in_signs

TEXT_OPEN, TEXT_CLOSE = "\ue000", "\ue001"
r"""Private marks around the content of ``\text{...}``: words there are never variables."""

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_SUPERSCRIPT_RUN = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUBSCRIPT_RUN = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_SYMBOLS = {
    **dict.fromkeys("−–—‒﹣－‐‑", "-"),
    **dict.fromkeys("×✕✖", r"\times "),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    **dict.fromkeys("‘’ʼ′", "'"),
    **dict.fromkeys("“”„«»「」『』", '"'),
    **dict.fromkeys("⟨〈", r"\langle "),
    **dict.fromkeys("⟩〉", r"\rangle "),
    **dict.fromkeys("∅⌀", r"\emptyset "),
    "÷": "/", "∕": "/", "⁄": "/", "∗": "*", "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "∛": r"\sqrt[3] ",
    "∜": r"\sqrt[4] ", "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "≅": r"\approx ", "≡": r"\equiv ", "∈": r"\in ", "∪": r"\cup ",
    "∩": r"\cap ", "∞": r"\infty ", "∧": r"\land ", "∨": r"\lor ", "°": r"^\circ ", "º": r"^\circ ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "∣": "|", "∶": ":", "：": ":", "，": ",", "、": ",", "。": ".", "≢": r"\not\equiv ",
    "→": r"\to ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ",
    "θ": r"\theta ", "ϑ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ",
    "τ": r"\tau ", "φ": r"\phi ", "ϕ": r"\phi ", "ω": r"\omega ", "Δ": r"\Delta ", "Ω": r"\Omega ",
}  # fmt: skip
_TRANSLATION = {ord(symbol): text for symbol, text in _SYMBOLS.items()}
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_ASCII_ONLY = re.compile(r"[\x20-\x7e\s]*")
_MARKS_AND_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ue000-\ue001]")

_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
_DOLLAR = re.compile(r"(?<!\\)\$")
_ESCAPED_CURRENCY = re.compile(r"\\(?=[$€£¥])|\\dollar\b")
_WRAPPER = re.compile(
    r"\\(text|textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm"
    r"|operatorname|boxed|fbox|emph|underline|ensuremath|mathord|displaystyle)\*?\s*\{([^{}]*)\}"
)
_PLAIN_WRAPPERS = frozenset({"boxed", "fbox", "boldsymbol", "bm", "mathbf", "mathit", "underline", "ensuremath", "emph",
                             "mathord", "displaystyle"})  # fmt: skip
_MODULO = re.compile(r"\s*\(\s*mod\b")
_SIZE = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|middle|rm|bf|it|normalsize|boxed|fbox)"
    r"(?![A-Za-z])\.?"
)
_FRACTION = re.compile(r"\\[dtcs]frac(?![A-Za-z])|\\nicefrac(?![A-Za-z])|\\sfrac(?![A-Za-z])")
_SPACE = re.compile(
    r"(?<!\\)\\[!,;:> ]|~|\\(?:quad|qquad|thinspace|enspace|hspace\{[^{}]*\}|phantom\{[^{}]*\})(?![A-Za-z])"
)
_BLANKS = re.compile(r"\s+")
_OUTSIDE_NUMBERS = re.compile(r" (?![0-9])|(?<![0-9]) ")
_EXCLAIMED = re.compile(r"(?:^|[^\\\w])[^\W\d_]{2,}!$")
_DOUBLED = re.compile(r"\\(?=\\[A-Za-z]{2})")
_LATEX_COMMA = re.compile(r",\\!\s*")
_COMMANDS = {"\\pounds": "£", "\\euro": "€", "\\!": "", "\\lbrace": "\\{", "\\rbrace": "\\}"}
_CHOOSE = re.compile(r"\{([^{}]{1,50})\\choose(?![A-Za-z])([^{}]{1,50})\}")
_OVER = re.compile(r"\{([^{}]{1,50})\\over(?![A-Za-z])([^{}]{1,50})\}")
_REVERSED = re.compile(r"[][][^][;,]+[;,][^][;,]+[][]")
_LEAN = re.compile(r"^\s*fun\s+\w+\s*(?::\s*\w+\s*)?=>")


def compact(text: str) -> str:
    """The text without white space, math delimiters and one final full stop, as ``exact`` compares it.

    A blank between digits stays: ``3 1/2`` is not ``31/2``.
    """
    return _OUTSIDE_NUMBERS.sub("", " ".join(without_delimiters(text).split())).removesuffix(".")


def without_delimiters(text: str) -> str:
    r"""The text without ``$``, ``\(``, ``\)``, ``\[`` and ``\]``. An unpaired ``$`` is currency and stays."""
    text = _DELIMITER.sub("", text)
    if "$" in text and len(_DOLLAR.findall(text)) % 2 == 0 and not _two_prices(text):
        text = _DOLLAR.sub("", text)
    return text


def _two_prices(text: str) -> bool:
    """``$5 and $6``: every dollar is in front of a number, and none closes."""
    return len(re.findall(r"(?<!\\)\$\s?[0-9]", text)) == len(_DOLLAR.findall(text))


def ascii_math(text: str) -> str:
    r"""Unicode mathematics as LaTeX: ``√3`` is ``\sqrt 3``, ``x²`` is ``x^{2}``, ``½`` is `` 1/2``, ``−`` is ``-``."""
    if _ASCII_ONLY.fullmatch(text):
        return text
    text = _MARKS_AND_CONTROLS.sub("", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[c] for c in run[0]) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[c] for c in run[0]) + "}", text)
    text = _VULGAR.sub(lambda sign: " " + unicodedata.normalize("NFKC", sign[0]).replace("\u2044", "/") + " ", text)
    text = unicodedata.normalize("NFKC", text.translate(_TRANSLATION)).translate(_TRANSLATION)
    return "".join(str(unicodedata.digit(c)) if not c.isascii() and c.isdigit() else c for c in text)


def clean(text: str) -> str:
    """An answer in one spelling, with the same meaning. White space becomes single blanks."""
    text = _LEAN.sub("", ascii_math(text)).replace("{,}", ",").replace("{:}", ":")
    if "\\" in text or "$" in text:
        text = _clean_latex(text)
    text = _BLANKS.sub(" ", text.replace("\\%", "%")).strip(' "*_`')
    while _ends_in_a_mark(text):
        text = text[:-1].rstrip(" *`")
    return in_signs(_with_round_brackets(_unwrapped(text)))


def _with_round_brackets(text: str) -> str:
    """``]3, 5[``, as the French write it, is ``(3, 5)``."""
    if not (text.startswith("]") or text.endswith("[")) or not _REVERSED.fullmatch(text):
        return text
    return text[0].replace("]", "(") + text[1:-1].replace(";", ",") + text[-1].replace("[", ")")


def _ends_in_a_mark(text: str) -> bool:
    """True if punctuation ends the text. The dots of ``0.33...``, a LaTeX space and the sign of ``n!`` do not count."""
    if text.endswith("!"):
        return bool(_EXCLAIMED.search(text)) or text[-2:-1] in ("", " ")
    return text.endswith((".", ",", ";", ":")) and not text.endswith(("...", "\\,", "\\;", "\\:"))


def _unwrapped(text: str) -> str:
    """An answer that is wholly inside one ``\\text{}`` means the same without it."""
    inner = text[1:-1]
    if not (text.startswith(TEXT_OPEN) and text.endswith(TEXT_CLOSE)) or TEXT_OPEN in inner or inner.strip().isalpha():
        return text
    return inner.strip(' ".')


def _clean_latex(text: str) -> str:
    text = _ESCAPED_CURRENCY.sub("", without_delimiters(text)) if "\\$" not in text else _escaped_dollars(text)
    if "\\begin" not in text:
        text = _DOUBLED.sub("", text)
    text = _LATEX_COMMA.sub(",", text)
    for command, meaning in _COMMANDS.items():
        text = text.replace(command, meaning)
    for _ in range(3):  # \text{} inside \boxed{} inside \mathrm{}
        text, changed = _WRAPPER.subn(_unwrap, text)
        if not changed:
            break
    text = _OVER.sub(r"\\frac{\1}{\2}", _CHOOSE.sub(r"\\binom{\1}{\2}", text)).replace("\\colon", ":")
    return _SPACE.sub(" ", _FRACTION.sub(r"\\frac", _SIZE.sub(" ", text)))


def _escaped_dollars(text: str) -> str:
    r"""``\$`` is always currency, and any other ``$`` is a delimiter."""
    parts = [without_delimiters(part) for part in text.split("\\$")]
    if len(_DOLLAR.findall(text)) % 2 == 0:
        parts = [_DOLLAR.sub("", part) for part in parts]
    return "$".join(parts)


def _unwrap(match: re.Match[str]) -> str:
    if match[1] in _PLAIN_WRAPPERS or _MODULO.match(match[2]):
        return f" {match[2]} " if not match[2].isalpha() else match[2]
    return f"{TEXT_OPEN}{match[2]}{TEXT_CLOSE}"
