import json
from typing import Any

import pytest

from pipeline.data.omcq.convert import ConvertSettings, Rejected, conversation, read_options
from pipeline.data.omcq.parts import MAX_ROW_BYTES, Part, converted

TARGET = {"question": "Where is Eibenstock?", "options": "A:France,B:Germany,C:Peru", "correct_answer": "B"}


def row(**changes: Any) -> bytes:
    target = {name: value for name, value in {**TARGET, **changes}.items() if value is not ...}
    return json.dumps({"id": 1, "target": [target]}).encode()


def said(line: bytes, **settings: Any) -> list[str]:
    messages = json.loads(conversation(line, ConvertSettings(**settings)))["conversations"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    return [message["content"] for message in messages]


def test_a_row_becomes_a_question_with_options_and_request_and_an_answer():
    asked = "Where is Eibenstock?\nA: France\nB: Germany\nC: Peru\n请选择正确答案。"
    assert said(row()) == [asked, "Germany"]
    assert said(row(), request="Choose.")[0].endswith("C: Peru\nChoose.")
    assert said(row(), request="")[0].endswith("C: Peru")


@pytest.mark.parametrize(("answer", "text"), [("text", "Germany"), ("letter", "B"), ("option", "B: Germany")])
def test_the_answer_is_a_text_a_letter_or_both_after_what_leads_it(answer, text):
    assert said(row(), answer=answer)[1] == text
    assert said(row(), answer=answer, answer_lead=" ")[1] == f" {text}"


@pytest.mark.parametrize("answer", ["B", "B:Germany", "B: Germany", "Germany", " germany ", "B：Germany"])
def test_a_letter_the_option_and_its_text_mean_the_same(answer):
    assert said(row(correct_answer=answer))[1] == "Germany"


OPTIONS = {
    "A:Paris, France,B:Rome: Italy,C:10:30": ("Paris, France", "Rome: Italy", "10:30"),
    "A: x, B: y, C: z": ("x", "y", "z"),
    "A:x\nB:y": ("x", "y"),
    "A：上海，B：北京": ("上海", "北京"),
    "A:C:\\dos,B:vitamin D: none": ("C:\\dos", "vitamin D: none"),
    "A:b:1,B:c:2": ("b:1", "c:2"),
    " A:x;B:  y  z ": ("x", "y z"),
}


@pytest.mark.parametrize("text", OPTIONS)
def test_options_may_hold_commas_and_colons(text):
    assert read_options(text) == OPTIONS[text]


DEEP = b'{"target": [{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"
MALFORMED = {
    "half a row": (b'{"target": [{"question": "Wh', "cut off at the end of the file"),
    "not JSON": (b"Where?\n", "not JSON"),
    "two values": (row() + row() + b"\n", "not JSON"),
    "single quotes": (b"{'target': []}\n", "not JSON"),
    "a number of 5000 digits": (b'{"target": ' + b"9" * 5000 + b"}\n", "not JSON"),
    "NUL in the file": (b'{"target": "\0"}\n', "not JSON"),
    "Latin-1": (b'{"target": "\xe9"}\n', "not UTF-8"),
    "UTF-16": (row().decode().encode("utf-16") + b"\n", "not UTF-8"),
    "nested too deeply": (DEEP, "nested too deeply"),
    "a number": (b"12", "not an object"),
    "a list": (b"[" + row() + b"]", "not an object"),
    "null": (b"null", "not an object"),
    "key twice": (b'{"target": [{"question": "a", "question": "b"}]}', "duplicate key"),
    "no target": (b'{"question": "?"}', "no target"),
    "null target": (b'{"target": null}', "target is not a list"),
    "object as target": (json.dumps({"target": TARGET}).encode(), "target is not a list"),
    "text as target": (b'{"target": "x"}', "target is not a list"),
    "empty target": (b'{"target": []}', "target is empty"),
    "text in target": (b'{"target": ["x"]}', "target[0] is not an object"),
    "list in target": (json.dumps({"target": [[TARGET]]}).encode(), "target[0] is not an object"),
    "no question": (row(question=...), "no question"),
    "null question": (row(question=None), "no question"),
    "blank question": (row(question=" \n"), "question is empty"),
    "invisible question": (row(question="\u200b\ufeff"), "question is empty"),
    "question of another type": (row(question=["a"]), "question is not a text"),
    "nested question": (row(question={"text": "a"}), "question is not a text"),
    "long question": (row(question="a" * 20_001), "question is too long"),
    "surrogate": (row(question="a\ud800"), "question has half a character"),
    "NUL": (row(question="a\x00b"), "question has a control character"),
    "escape": (row(question="a\x1b[31mb"), "question has a control character"),
    "lost letters": (row(question="M\ufffdnchen?"), "question has a replacement character"),
    "no options": (row(options=...), "no options"),
    "empty options": (row(options=""), "options is empty"),
    "list of options": (row(options=["A:x", "B:y"]), "options is not a text"),
    "object of options": (row(options={"A": "x"}), "options is not a text"),
    "control character in options": (row(options="A:x\x07,B:y"), "options has a control character"),
    "single option": (row(options="A:Germany"), "a single option"),
    "lower case": (row(options="A:x,b:y"), "a single option"),
    "starts with B": (row(options="B:x,C:y"), "options do not start with A"),
    "starts with a text": (row(options="x,A:y,B:z"), "options do not start with A"),
    "no letters": (row(options="x,y,z"), "options do not start with A"),
    "letter left out": (row(options="A:x,C:y"), "letters of options are out of order"),
    "letters swapped": (row(options="A:x,C:y,B:z"), "letters of options are out of order"),
    "letter inside a text": (row(options="A:x, D:y,B:z"), "letters of options are out of order"),
    "letter twice": (row(options="A:x,B:y,B:z"), "an option's letter is repeated"),
    "separated in two ways": (row(options="A:x,B:y, C: z"), "options are ambiguous"),
    "comma at the end": (row(options="A:x,B:y,"), "options are ambiguous"),
    "empty option": (row(options="A:x,B:,C:y", correct_answer="A"), "an option is empty"),
    "invisible option": (row(options="A:x,B:\u200b,C:y", correct_answer="A"), "an option is empty"),
    "equal options": (row(options="A:x,B:y,C:X ", correct_answer="B"), "two options are equal"),
    "options that look equal": (row(options="A:x,B:x\u200b"), "two options are equal"),
    "no answer": (row(correct_answer=...), "no correct_answer"),
    "null answer": (row(correct_answer=None), "no correct_answer"),
    "empty answer": (row(correct_answer=" "), "correct_answer is empty"),
    "number as answer": (row(correct_answer=1), "correct_answer is not a text"),
    "list as answer": (row(correct_answer=["B"]), "correct_answer is not a text"),
    "letter beyond": (row(correct_answer="D"), "correct_answer is a letter without an option"),
    "small letter": (row(correct_answer="b"), "correct_answer is a letter without an option"),
    "another text": (row(correct_answer="Spain"), "correct_answer is not an option"),
    "part of a text": (row(correct_answer="Ger"), "correct_answer is not an option"),
    "two letters": (row(correct_answer="A,B"), "correct_answer is not an option"),
    "letter beyond with a text": (row(correct_answer="D:Spain"), "correct_answer is not an option"),
    "letter of another text": (row(correct_answer="A:Germany"), "correct_answer's letter and text disagree"),
    "letter or text": (row(options="A:B,B:A", correct_answer="A"), "correct_answer is ambiguous"),
    "row of over a megabyte": (b'"' + b"x" * MAX_ROW_BYTES + b'"', "the row is too long"),
}


@pytest.mark.parametrize(("line", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_row_is_rejected_with_a_reason_and_the_next_is_converted(tmp_path, line, reason):
    file = tmp_path / "rows.jsonl"
    lines = [row(), line.rstrip(b"\n"), row()] if reason != "cut off at the end of the file" else [row(), row(), line]
    file.write_bytes(b"\n".join(lines))
    [batch] = converted(Part(0, str(file), 0, file.stat().st_size), ConvertSettings())
    reasons = [result["reason"] for result in batch.to_pylist()]
    assert sorted(reasons, key=str) == sorted([None, reason, None], key=str)
    assert batch["text"].null_count == 1
    assert all(text.endswith(b'"Germany"}]}\n') for text in batch["text"].drop_null().to_pylist())


def test_an_unknown_error_is_no_reason():
    with pytest.raises(Rejected, match="no target"):
        conversation(b"{}", ConvertSettings())
