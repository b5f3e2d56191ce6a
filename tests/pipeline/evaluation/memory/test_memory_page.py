"""The page on which one looks up what was read."""

import base64
import gzip
import json
import re
from typing import Any

from pipeline.evaluation.memory.memory_page import lookup_text, memory_page
from pipeline.evaluation.memory.summary import summarize
from tests.support.memory_questions import KNOWLEDGE, QUESTIONS
from tests.support.runs import HOSTILE

TEXTS = [entry.text for entry in KNOWLEDGE]


def row(condition: str, number: int = 0, **values: Any) -> dict[str, Any]:
    """A question that was answered correctly."""
    asked = QUESTIONS[number]
    found = {
        "candidates": [2, -1, 0],
        "similarities": [0.5, 0.0, 0.75],
        "chosen": [0, 2],
        "right_place": 3,
        "read": ["Bo is in Rome", "Cleo"],
    }
    verdict = dict.fromkeys(("exact", "startswith", "contains"), True)
    return {
        **{"question_id": asked.question_id, "condition": condition, "relation": asked.relation},
        **{"relation_label": "place", "question": "Where?", "options": list(asked.options), "right": asked.object},
        **{"answer": asked.object, **verdict, "entry": asked.entry_id},
        **(found if condition == "memory" else {"ranked": "Oslo"}),
        **values,
    }


def made(rows: list[dict[str, Any]], texts: list[str] = TEXTS) -> str:
    summary = {"model": HOSTILE, "num_entries": 4, **summarize(rows, QUESTIONS[:2])}
    use = {"bank/coverage": 0.5, "hottest": [(0, 2)]}
    perplexity = {"perplexity": 3.21, "token_accuracy": 0.5}
    text = {"without": perplexity, "with": perplexity | {"perplexity": 4.56}, "num_texts": 7, "num_too_long": 0}
    return memory_page("a & b", summary | {"bank": {"memory": use}, "forgetting": {"gsm8k": text}}, rows, texts, {})


def unpacked(html: str) -> list[dict[str, Any]]:
    rows = re.search(r'<script type="application/gzip" id="rows">([A-Za-z0-9+/=]*)</script>', html)
    assert rows
    columns = json.loads(gzip.decompress(base64.b64decode(rows[1])))
    count = len(columns["question_id"]["rows"])
    return [{name: c["values"][c["rows"][i]] for name, c in columns.items()} for i in range(count)]


ROWS = [row(name, number) for number in (0, 1) for name in ("memory", "without")]


def test_candidates_are_in_their_order_with_their_similarity_and_the_right_entry_is_marked():
    assert lookup_text(row("memory"), TEXTS).splitlines() == [
        "> *#0 Bo is in Rome",
        "> #2 Cleo",
        "the right entry is candidate 3; the first candidates:",
        " 0.500 #2 Cleo is in Lima",
        " 0.750 *#0 Bo is in Rome",
    ]


def test_layers_and_positions_are_told_apart():
    layers = {"3": [{"token": "\n", "chosen": 1, "similarity": 0.25, "candidates": [2, 1]}]}
    values = {"chosen": [1], "read": ["Abu is in Oslo"], "layers": layers}
    bare = {key: value for key, value in row("memory").items() if key != "similarities"} | values
    assert lookup_text(bare, TEXTS).splitlines()[2:] == [r"layer 3, after '\n': #1 (0.250) of #2 #1"]


def test_a_question_is_one_row_with_the_answers_under_all_conditions():
    wrong = row("without", answer="Oslo?", contains=False)
    first, second = unpacked(made([ROWS[0], wrong, *ROWS[2:]]))
    assert (first["verdict"], first["in_without"], second["in_without"]) == ("correct", "incorrect", "correct")
    assert first["answer_without"] == "Oslo?\nlikeliest option: Oslo" and first["answer_memory"] == "Rome"
    assert "> *#0 Bo is in Rome" in first["read"]


def test_the_tables_show_accuracy_use_and_forgetting():
    html = made(ROWS)
    for text in ("100.0%", "Router", "#0 Bo is in Rome", "coverage", "3.21", "4.56", "keeps the old"):
        assert text in html


def test_texts_of_models_and_data_are_shown_and_do_nothing():
    hostile = [HOSTILE, *TEXTS[1:]]
    rows = [
        row(name, number, answer=HOSTILE, read=[HOSTILE] * 2) for number in (0, 1) for name in ("memory", "without")
    ]
    html = made(rows, hostile)
    assert HOSTILE not in html and "https://" not in html
    assert unpacked(html)[0]["answer_memory"].startswith(HOSTILE[:10])
