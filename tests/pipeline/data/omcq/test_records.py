import json

import pytest

from pipeline.data.omcq import KnowledgeEntry, read_knowledge, read_questions
from pipeline.errors import DataError

CHAT = [{"role": "user", "content": "?"}, {"role": "assistant", "content": " Paris"}]
QUESTION = {
    "question_id": "train-0", "entry_id": 3, "subject": "France", "relation": "P36", "relation_label": "capital",
    "object": "Paris", "options": ["Rome", "Paris"], "answer_index": 1, "conversations": CHAT,
    "conversations_unseen": CHAT,
}  # fmt: skip
ENTRY = {
    "id": 0, "text": "The capital of France is Paris.", "subject": "France", "relation": "P36", "object": "Paris",
    "template": "The capital of [X] is [Y].",
}  # fmt: skip


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_question_has_all_its_fields(tmp_path):
    [question] = read_questions(written(tmp_path / "q.jsonl", QUESTION))
    assert (question.entry_id, question.answer_index, question.options) == (3, 1, ("Rome", "Paris"))
    assert (type(question.entry_id), question.conversations) == (int, tuple(CHAT))


def test_an_entry_is_rewritten_with_another_object(tmp_path):
    [entry] = read_knowledge(written(tmp_path / "k.jsonl", ENTRY))
    assert entry.text_with("Rome") == "The capital of France is Rome."
    assert KnowledgeEntry(0, "", "[Y] & Co", "P1", "", "[X] makes [Y].").text_with("[X]") == "[Y] & Co makes [X]."


BAD_QUESTIONS = {
    "no subject": ({"subject": ""}, "subject must be a text, got ''"),
    "id": ({"question_id": 7}, "question_id must be a text, got Decimal"),
    "negative entry": ({"entry_id": -1}, "entry_id must be a whole number from 0"),
    "fraction": ({"answer_index": 0.5}, "answer_index must be a whole number from 0"),
    "flag": ({"answer_index": True}, "answer_index must be a whole number from 0"),
    "beyond the options": ({"answer_index": 2}, "answer_index must be an index into 2 options, got 2"),
    "another option": ({"answer_index": 0}, "option 0 must be the object 'Paris'"),
    "options": ({"options": "A"}, "options must be a list of texts, got 'A'"),
    "one option": (
        {"options": ["Paris", "Paris"]},
        "options must be two different texts at least, got ['Paris', 'Paris']",
    ),
    "messages": ({"conversations": [{"role": "user"}]}, "conversations must be a list of messages"),
    "no answer": ({"conversations_unseen": CHAT[:1]}, "conversations_unseen must end with the user's question"),
    "no messages": ({"conversations": []}, "conversations must end with the user's question"),
}


@pytest.mark.parametrize(("change", "message"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_a_bad_question_is_named_by_its_line(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        read_questions(written(tmp_path / "q.jsonl", QUESTION, {**QUESTION, **change}))
    assert str(error.value).startswith(f"q.jsonl line 2: {message}")


def test_bad_files_and_entries_are_named(tmp_path):
    with pytest.raises(DataError, match=r"k\.jsonl: entry 2 must have id 1, got 0"):
        read_knowledge(written(tmp_path / "k.jsonl", ENTRY, ENTRY))
    with pytest.raises(DataError, match=r"k\.jsonl line 1: text must be a text, got None"):
        read_knowledge(written(tmp_path / "k.jsonl", {**ENTRY, "text": None}))
    with pytest.raises(DataError, match=r"missing\.jsonl cannot be read: No such file"):
        read_questions(tmp_path / "missing.jsonl")
