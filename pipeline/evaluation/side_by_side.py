"""Puts evaluations side by side: which model solves which of the problems that both were asked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError
from pipeline.evaluation.comparison import Row, by_problem, compare_models, comparison_entry
from pipeline.evaluation.record import difference, read_record
from pipeline.evaluation.results import ResultsFile

if TYPE_CHECKING:
    from rich.table import Table

Groups = dict[tuple[str, str], list[Row]]
"""Rows by (model, data set)."""
Setup = tuple[dict[str, Any], dict[str, Any]]
"""The prompt, and the sampling settings by part."""


def compare_evaluations(directories: Sequence[Path]) -> dict[str, Any]:
    """Compare each model of all the evaluations with the first one, on each data set.

    Returns:
        ``comparisons``, and ``notes`` on differences that make them less than fair.

    Raises:
        CheckpointError: no such evaluation, no problems in common, or different gold answers to the same problem.
    """
    groups, setups = _read(directories)
    _check_golds(groups)
    comparisons = compare_models(groups)
    if not comparisons:
        answered = "; ".join(f"{model} on {dataset}" for model, dataset in groups)
        raise CheckpointError(f"evaluations must have problems in common, answered by two models, got {answered}.")
    return {"comparisons": [comparison_entry(c) for c in comparisons], "notes": _notes(groups, setups)}


def comparison_table(result: Mapping[str, Any]) -> "Table":
    """For a terminal."""
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
            f"{c['p']:.2g}",
        )
    return table


def _read(directories: Sequence[Path]) -> tuple[Groups, dict[tuple[str, str], Setup]]:
    """Rows and setups by (model, data set)."""
    groups: Groups = {}
    setups: dict[tuple[str, str], Setup] = {}
    for label, directory, record, model in _labelled(directories):
        rows: list[Row] = [row for row in ResultsFile(directory).light_rows() if row["model"] == model]
        sampling = {key: record["settings"].get(key) for key in ("rollout", "loading", "grading", "seed")}
        for prompt in (prompt for prompt in record["prompts"] if prompt["model"] == model):
            dataset = prompt["dataset"]
            if answered := [row for row in rows if row["dataset"] == dataset]:
                groups[label, dataset] = answered
                setups[label, dataset] = {**prompt, "model": None}, sampling
    return groups, setups


def _labelled(directories: Sequence[Path]) -> Iterator[tuple[str, Path, dict[str, Any], str]]:
    """(label, directory, record, model). The directory's name tells apart models of the same name."""
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise CheckpointError("evaluations must be different directories, got one of them twice.")
    records = [(directory, read_record(directory)) for directory in directories]
    models = [model["label"] for _, record in records for model in record["models"]]
    names = [directory.resolve().name for directory in directories]
    for directory, record in records:
        name = directory.resolve().name
        where = name if names.count(name) == 1 else str(directory.resolve())
        for model in record["models"]:
            label = model["label"]
            yield (label if models.count(label) == 1 else f"{where}: {label}"), directory, record, label


def _check_golds(groups: Groups) -> None:
    golds: dict[tuple[str, str], str] = {}
    for (model, dataset), rows in groups.items():
        for row in rows:
            known = golds.setdefault((dataset, row["problem_id"]), row["gold"])
            if known != row["gold"]:
                raise CheckpointError(
                    f"evaluations must agree on gold answers, got {known!r:.60} and {row['gold']!r:.60} for "
                    f"{row['problem_id']} of {dataset} ({model}): they used different versions of it."
                )


def _notes(groups: Groups, setups: Mapping[tuple[str, str], Setup]) -> list[str]:
    """A sentence for each difference between a model's setup and that of the first model on the same data set."""
    first: dict[str, str] = {}
    notes = []
    for model, dataset in groups:
        other = first.setdefault(dataset, model)
        (prompt, sampling), (other_prompt, other_sampling) = setups[model, dataset], setups[other, dataset]
        if prompt != other_prompt:
            notes.append(f"{model} and {other} were asked differently on {dataset}: their prompts differ.")
        for part, values in sampling.items():
            if values != other_sampling[part]:
                notes.append(
                    f"{model} and {other} differ on {dataset} in {part}: {difference(other_sampling[part], values)}."
                )
        sizes = [len(by_problem(groups[name, dataset])) for name in (model, other)]
        if sizes[0] != sizes[1]:
            notes.append(f"{model} was asked {sizes[0]} problems of {dataset}, {other} {sizes[1]}.")
    return notes
