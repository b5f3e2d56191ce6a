"""Held-out accuracy of a run, as tables."""

from typing import Any

from rich.console import Console

from pipeline.reports.accuracy import accuracy_change, accuracy_section, accuracy_table, with_intervals
from tests.support.runs import LEVELS, make_run


def evaluation(name: str, tagged: float, num_problems: int = 10, **others: Any) -> dict[str, Any]:
    result = {"num_problems": num_problems, "accuracy_tagged": tagged, "accuracy_last_number": tagged, **others}
    return {"name": name, "step": 0, "levels": {"1": result}, "overall": result}


def test_a_terminal_gets_a_column_per_evaluation(tmp_path):
    console = Console(width=100, record=True)
    console.print(accuracy_table(make_run(tmp_path)))
    lines = console.export_text().splitlines()
    assert all(name in lines[2] for name in ("level", "before", "sft-warmup", "grpo-sums"))
    assert [cell.strip() for cell in next(x for x in lines if LEVELS[0] in x).strip("│").split("│")] == [
        "level 1",
        "0.0% (12.0%)",
        "75.0% (76.0%)",
        "80.0% (81.0%)",
    ]


def test_evaluations_are_compared_on_the_same_number_of_problems_only():
    before, after, larger = evaluation("before", 0.2), evaluation("after", 0.5), evaluation("end", 0.5, num_problems=90)
    assert accuracy_change(before, after)["overall"] == {"tagged": 0.3, "last_number": 0.3}
    assert accuracy_change(before, larger) == {"from": "before", "to": "end", "levels": {}, "overall": {}}


def test_the_section_has_a_table_for_each_measure_that_was_taken():
    evaluations = [with_intervals(evaluation(name, frac)) for name, frac in (("before", 0.2), ("after", 0.5))]
    html = accuracy_section(evaluations)
    assert html.count("<table") == 2 and "50.0%" in html and "24–76 % · +30.0" in html
    measured = [with_intervals(evaluation("before", 0.2, answer_accuracy=0.4))]
    assert accuracy_section(measured).count("<table") == 3
    assert accuracy_section([]) == ""
