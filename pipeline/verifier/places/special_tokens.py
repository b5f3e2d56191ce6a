"""Special tokens that end a completion, as the families of models spell them."""

import re

_MAX_CHARS = 80
_NAME = (
    r"(?:eos|bos|pad|unk|sep|cls|mask|eot|eod|eop|eom|eoa|eoh|sop|seed:eos|end[ _▁]?of[ _▁]?\w{1,20}|start_of_\w{1,20}"
    r"|unused_?\w{1,20}|reserved_\w{1,20}|extra_id_[0-9]{1,4}|special_[0-9]{1,4})"
)
_TOKEN = re.compile(
    r"<[|｜][\w▁:. /-]{2,40}[|｜]>"  # <|im_end|>, <|eot_id|>, <｜end▁of▁sentence｜>
    rf"|</?(?:s|{_NAME})>|\[/?(?:inst|{_NAME})\]"  # </s>, <end_of_turn>, [EOS], [/INST]
    r"|\[\|[a-z_]{3,20}\|\]|<\|?turn\|?>|\[e~\[",  # [|endofturn|], <turn|>
    re.IGNORECASE,
)


def without_special_tokens(text: str) -> str:
    """The text without the special tokens at its end. They are not part of an answer: ``8<|im_end|>`` is 8."""
    end = len(text)
    while True:
        tail = text[max(0, end - _MAX_CHARS) : end].rstrip()
        start = max(tail.rfind("<", 0, -1), tail.rfind("[", 0, -1))
        if start < 0 or not _TOKEN.fullmatch(tail, start):
            return text[:end]
        end -= len(text[max(0, end - _MAX_CHARS) : end]) - start
