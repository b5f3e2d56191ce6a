"""The page of an evaluation: accuracies, the use of the bank, and a browser over the questions with what was read."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.browser import View, browser_page
from pipeline.evaluation.memory.asking import Row
from pipeline.evaluation.memory.matching import COMPARISONS
from pipeline.evaluation.memory.summary import HEADLINE, Summary
from pipeline.reports import page

ANSWERS_FILE = "answers.jsonl"
MAX_QUESTIONS = 5000
"""On the page; answers.jsonl has all."""
_NOTES = {
    "memory": "the bank as it was given",
    "without": "the frozen backbone alone",
    "shuffled": "every entry in the slot of another one",
    "swapped": "another option written into each entry, and right",
    "given": "the right entry alone",
    "given_among": "the right entry among those that the router finds",
    "unseen": "as memory, in a wording that no question is trained in",
    "unseen_without": "as without, in that wording",
    "model": "a model without memory",
    "unseen_model": "the same, in a wording that no question is trained in",
}


def memory_page(
    title: str, summary: Summary, rows: Sequence[Row], texts: Sequence[str], config: Mapping[str, Any]
) -> str:
    """HTML of ``memory.html``.

    Args:
        rows: of answers.jsonl, by question.
    """
    questions: dict[str, list[Row]] = {}
    for row in rows:
        questions.setdefault(row["question_id"], []).append(row)
    shown = [_question(group, texts) for group in list(questions.values())[:MAX_QUESTIONS]]
    names = list(summary["conditions"])
    return browser_page(title, _headline(summary), _sections(summary, texts, config), shown, _view(names))


def _view(names: Sequence[str]) -> View:
    verdicts = [f"in_{name}" for name in names]
    answers = [f"answer_{name}" for name in names]
    return View(
        item="question",
        file=ANSWERS_FILE,
        fields=("question_id", "sample", "verdict", "relation", "right", *verdicts, *answers, "question", "read"),
        facets=("verdict", *verdicts[1:], "relation"),
        searched=("question", "right", answers[0]),
        columns=("question_id", "sample", "verdict", answers[0], "right", "relation", *verdicts[1:]),
        numbers=("sample",),
        facts=("verdict", "right", "relation", *verdicts[1:]),
        texts=(("question",), *((answer,) for answer in answers), ("read",)),
        folded={},
        names={"verdict": names[0], "read": "Entries that were looked at"}
        | {f"in_{name}": name.replace("_", " ") for name in names}
        | {f"answer_{name}": f"answer: {name.replace('_', ' ')}" for name in names},
    )


def _question(rows: Sequence[Row], texts: Sequence[str]) -> dict[str, Any]:
    first = rows[0]
    read = [f"{row['condition']}\n{lookup_text(row, texts)}" for row in rows if "chosen" in row]
    return {
        "question_id": first["question_id"],
        "sample": 0,
        "verdict": _verdict(first),
        "relation": f"{first['relation']} {first['relation_label']}",
        "right": first["right"],
        "question": first["question"],
        "read": "\n\n".join(read),
        **{f"in_{row['condition']}": _verdict(row) for row in rows},
        **{f"answer_{row['condition']}": _answer(row) for row in rows},
    }


def _verdict(row: Row) -> str:
    return "correct" if row[HEADLINE] else "incorrect"


def _answer(row: Row) -> str:
    ranked = f"\nlikeliest option: {row['ranked']}" if "ranked" in row else ""
    right = f"\nright in this bank: {row['right']}" if row["condition"] == "swapped" else ""
    return f"{row['answer'].strip()}{ranked}{right}"


def lookup_text(row: Row, texts: Sequence[str]) -> str:
    """The entries that a row's model looked at, one a line. ``>`` marks those that it read, ``*`` the right one."""
    read = [f"> {_mark(row, entry)}{text}" for entry, text in zip(row["chosen"], row["read"], strict=True)]
    place = row["right_place"]
    right = f"the right entry is candidate {place}" if place else "the right entry is no candidate"
    if "similarities" in row:
        return "\n".join([*read, f"{right}; the first candidates:", *_candidates(row, texts)])
    layers = [line for layer, found in row.get("layers", {}).items() for line in _layer(layer, found)]
    return "\n".join([*read, right, *layers])


def _mark(row: Row, entry: int) -> str:
    return f"{'*' if entry == row['entry'] else ''}#{entry} "


def _candidates(row: Row, texts: Sequence[str]) -> list[str]:
    """In the order of the product keys, with the cosine similarity of each."""
    pairs = zip(row["candidates"], row["similarities"], strict=True)
    return [f"{score:6.3f} {_mark(row, entry)}{texts[entry]}" for entry, score in pairs if entry >= 0]


def _layer(layer: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each position: the token that was read, the entry that was chosen, and the other candidates."""
    return [
        f"layer {layer}, after {item['token']!r}: #{item['chosen']} ({item['similarity']:.3f}) of "
        + " ".join(f"#{entry}" for entry in item["candidates"])
        for item in found
    ]


def _headline(summary: Summary) -> str:
    facts = [
        summary["model"],
        f"{summary['num_questions']:,} questions",
        f"{summary['num_entries']:,} entries" if summary["num_entries"] else "",
        f"chance {summary['chance']:.1%}",
    ]
    cards = [(f"right: {name}", f"{found[HEADLINE]['value']:.1%}") for name, found in summary["conditions"].items()]
    return page.headline(facts, cards)


def _sections(summary: Summary, texts: Sequence[str], config: Mapping[str, Any]) -> dict[str, str]:
    cut = f"This page shows the first {MAX_QUESTIONS:,} questions: {ANSWERS_FILE} has them all."
    return {
        "Accuracy": _accuracy(summary),
        "Which is better": "".join(page.note(c["sentence"]) for c in summary["comparisons"]),
        "Router": _recall(summary),
        "By relation": page.details("all relations", _by_relation(summary)),
        "Use of the bank": _use(summary, texts),
        "Forgetting": _forgetting(summary),
        "Configuration": page.configuration(config),
        "Rows left out": page.note(cut) if summary["num_questions"] > MAX_QUESTIONS else "",
    }


def _estimate(found: Mapping[str, Any] | None) -> Any:
    if found is None:
        return "-"
    low, high = found["interval"]
    return f"{found['value']:.1%}", f"{low:.1%} to {high:.1%}"


def _accuracy(summary: Summary) -> str:
    kept = f"keeps_{HEADLINE}"
    lines = [
        [
            (name, _NOTES[name]),
            found["exact"]["num"],
            *(_estimate(found.get(k)) for k in (*COMPARISONS, "ranked", kept)),
        ]
        for name, found in summary["conditions"].items()
    ]
    prior = summary["most_frequent_object"]
    note = (
        "Exact: the answer is the right option, apart from case, white space and a full stop at its end. Contains: it "
        "contains the right option and no other. Ranked: the option whose tokens are the likeliest. Below each: 95 % "
        f"interval. Chance: {summary['chance']:.1%}. The most frequent object of each relation: "
        f"{'not known without training questions' if prior is None else f'{prior:.1%}'}."
    )
    return page.table(["asked", "questions", *COMPARISONS, "ranked", "keeps the old"], lines) + page.note(note)


def _recall(summary: Summary) -> str:
    lines = [
        [name, *map(_estimate, found["recall"].values())]
        for name, found in summary["conditions"].items()
        if "recall" in found
    ]
    return page.table(["the right entry is", "the first", "among the chosen", "a candidate"], lines) if lines else ""


def _by_relation(summary: Summary) -> str:
    names = list(summary["conditions"])
    lines = []
    for relation, known in summary["relations"].items():
        shares = [summary["conditions"][name]["by_relation"][relation][HEADLINE] for name in names]
        prior = known["most_frequent_object"]
        beside = [f"{known['chance']:.1%}", "-" if prior is None else f"{prior:.1%}"]
        lines.append([(relation, known["label"]), known["num_questions"], *beside, *map(_estimate, shares)])
    return page.table(["relation", "questions", "chance", "most frequent", *names], lines)


def _use(summary: Summary, texts: Sequence[str]) -> str:
    parts = []
    for name, use in summary["bank"].items():
        lines = [[key.removeprefix("bank/"), f"{value:.4g}"] for key, value in use.items() if key != "hottest"]
        hottest = [[f"#{entry} {texts[entry]}", count] for entry, count in use["hottest"]]
        content = page.table(["use", "value"], lines) + page.table(["entry chosen most often", "times"], hottest)
        parts.append(page.details(name, content, is_open=name == "memory"))
    return "".join(parts)


def _forgetting(summary: Summary) -> str:
    lines = [
        [(name, f"{found['num_texts']:,} texts"), *(_perplexity(found.get(key)) for key in ("without", "with"))]
        for name, found in summary["forgetting"].items()
    ]
    note = "Perplexity of worked solutions after their questions; below it, the share of tokens that are the likeliest."
    return page.table(["data set", "without memory", "with memory"], lines) + page.note(note) if lines else ""


def _perplexity(found: Mapping[str, float] | None) -> Any:
    return (f"{found['perplexity']:.4g}", f"{found['token_accuracy']:.1%}") if found else "-"
