"""Evaluations side by side: who solves what, on the problems that both were asked."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError
from pipeline.evaluation.record import read_record
from pipeline.evaluation.results import ResultsFile
from pipeline.evaluation.summary import by_problem, compare_groups, plain

if TYPE_CHECKING:
    from rich.table import Table

Groups = dict[tuple[str, str], list[dict[str, Any]]]


def compare_evaluations(directories: Sequence[Path]) -> dict[str, Any]:
    """Each model of all the evaluations against the first one, on each data set.

    Returns:
        ``comparisons``, and ``notes`` on what makes them less than fair.

    Raises:
        CheckpointError: no such evaluation, nothing in common, or other gold answers to the same problems.
    """
    groups, prompts = _read(directories)
    _check_golds(groups)
    comparisons = compare_groups(groups)
    if not comparisons:
        there = "; ".join(f"{model} on {dataset}" for model, dataset in groups)
        raise CheckpointError(f"evaluations must have problems in common, answered by two models, got {there}.")
    return {"comparisons": [asdict(c) | plain(c) for c in comparisons], "notes": _notes(groups, prompts)}


def comparison_table(result: dict[str, Any]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="answer accuracy on shared problems")
    for name in ("A", "B"):
        table.add_column(name, overflow="fold")
    for name in ("problems", "A", "B", "B - A, points", "only A", "only B", "p"):
        table.add_column(name, justify="right")
    for c in result["comparisons"]:
        low, high = c["interval"]
        table.add_row(
            Text(c["a"]),
            Text(c["b"]),
            str(c["num_problems"]),
            f"{c['accuracy_a']:.1%}",
            f"{c['accuracy_b']:.1%}",
            f"{100 * c['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
            f"{c['num_only_a']:g}",
            f"{c['num_only_b']:g}",
            "-" if c["p"] is None else f"{c['p']:.2g}",
        )
    return table


def _read(directories: Sequence[Path]) -> tuple[Groups, dict[tuple[str, str], Any]]:
    """Rows and prompts by (model, data set). Models of the same name are told apart by their directory."""
    groups: Groups = {}
    prompts = {}
    records = [(directory, read_record(directory)) for directory in directories]
    labels = [model["label"] for _, record in records for model in record["models"]]
    for directory, record in records:
        rows = ResultsFile(directory).light_rows()
        if not rows:
            raise CheckpointError(f"evaluation {directory} must have results, and has none yet.")
        for prompt in record["prompts"]:
            model, dataset = prompt["model"], prompt["dataset"]
            label = model if labels.count(model) == 1 else f"{directory.resolve().name}: {model}"
            if part := [row for row in rows if (row["model"], row["dataset"]) == (model, dataset)]:
                groups[label, dataset] = part
                prompts[label, dataset] = {key: value for key, value in prompt.items() if key != "model"}
    return groups, prompts


def _check_golds(groups: Groups) -> None:
    golds: dict[tuple[str, str], str] = {}
    for (model, dataset), rows in groups.items():
        for row in rows:
            known = golds.setdefault((dataset, row["problem_id"]), row["gold"])
            if known != row["gold"]:
                raise CheckpointError(
                    f"evaluations must agree on gold answers, got {known!r:.60} and {row['gold']!r:.60} for "
                    f"{row['problem_id']} of {dataset} ({model}): they are of different versions of it."
                )


def _notes(groups: Groups, prompts: dict[tuple[str, str], Any]) -> list[str]:
    """What was not the same for all."""
    first: dict[str, str] = {}
    notes = []
    for model, dataset in groups:
        other = first.setdefault(dataset, model)
        if prompts[model, dataset] != prompts[other, dataset]:
            notes.append(f"{model} and {other} were asked differently on {dataset}: their prompts differ.")
        sizes = [len(by_problem(groups[name, dataset])) for name in (model, other)]
        if sizes[0] != sizes[1]:
            notes.append(f"{model} was asked {sizes[0]} problems of {dataset}, {other} {sizes[1]}.")
    return notes
