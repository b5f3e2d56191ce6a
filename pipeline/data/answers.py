"""Reads gold answers and worked solutions out of the columns of a data set."""

import re

from pipeline.config import DataConfig


def read_answer(text: str, config: DataConfig) -> tuple[str, str]:
    """The worked solution, empty if there is none, and the gold answer, empty if it is unusable."""
    if config.gold_format == "plain":
        return "", text
    if config.gold_format == "boxed":
        return text, last_boxed(text) or ""
    if config.gold_format == "phrase":
        reasoning, mark, gold = text.rpartition("The answer is:")
        return re.sub(r"####[^\n]*\s*$", "", reasoning).strip(), gold.strip() if mark else ""
    reasoning, mark, gold = text.rpartition("####")
    gold = gold.strip().splitlines()[0] if mark and gold.strip() else ""
    return re.sub(r"<<[^<>]*>>", "", reasoning).strip(), gold.strip()


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, ``\boxed x`` or ``\fbox{...}``; None without a closed one."""
    boxes = list(re.finditer(r"\\(?:boxed|fbox)(?![A-Za-z])\s*", text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        return re.split(r"[$\n]", rest)[0].strip()
    depth = 0
    for token in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # \{ and \} do not nest
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0 and token[0] == "}":
            return rest[1 : token.start()].strip()
    return None


def worked_solution(reasoning: str, answer: str) -> str:
    """A solution in the form that the policy should write, which the format reward looks for."""
    return f"<reasoning>\n{reasoning.strip()}\n</reasoning>\n<answer>\n{answer.strip()}\n</answer>"
