"""Grade a file of completions against their gold answers, over all cores or a Ray cluster.

python jobs/grade.py --completions FILE [--completion-field completion] [--gold-field gold]

FILE is JSONL or parquet. Its rows are written, in order, to FILE.graded.jsonl or .parquet with three new fields:
outcome (correct, incorrect, unparsed, timeout, bad_gold), method (exact, symbolic, numeric) and answer (as extracted
from the completion). A new field whose name the first row already has gets the prefix graded_ in all rows; it is an
error if only a later row has that name.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import user_errors

if TYPE_CHECKING:
    from pipeline.grading.run import Spread
    from pipeline.grading.tally import Tally

PLAIN_INTERVAL_S = 10.0


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with user_errors(interrupted="interrupted: nothing was written."):
        from pipeline.grading.chunks import GradeSettings
        from pipeline.grading.run import check_paths, default_output, grade_file

        output = arguments.output or default_output(arguments.completions)
        check_paths(arguments.completions, output, overwrite=arguments.force)
        settings = GradeSettings(
            completion_field=arguments.completion_field,
            gold_field=arguments.gold_field,
            all_methods=arguments.all_methods,
            timeout_s=arguments.timeout_s,
            memory_limit_mib=arguments.memory_limit_mib,
        )
        start = time.perf_counter()
        with _progress() as on_progress:
            tally = grade_file(arguments.completions, output, settings, _spread(arguments), on_progress)
        _print_summary(tally, time.perf_counter() - start, "line" if output.suffix == ".jsonl" else "row")
        print(output)


def _spread(arguments: argparse.Namespace) -> "Spread":
    if arguments.ray:
        from actors.grading import over_ray

        return partial(over_ray, num_workers=arguments.num_workers)
    from pipeline.grading.processes import over_processes

    return partial(over_processes, num_workers=arguments.num_workers or _num_cores())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--completions", required=True, type=Path, metavar="FILE", help="a .jsonl or .parquet file")
    add("--completion-field", default="completion", metavar="NAME", help="the field to grade (default: %(default)s)")
    add("--gold-field", default="gold", metavar="NAME", help="the correct final answer (default: %(default)s)")
    add("--output", type=Path, metavar="FILE", help="default: beside the input, with .graded before the suffix")
    add("--force", action="store_true", help="replace an existing output")
    add("--num-workers", type=_number(int, 1, 10_000), metavar="N", help="default: one per core")
    add("--timeout-s", type=_number(float, 0.01, 3600), default=2.0, metavar="S", help="seconds per pair (default: 2)")
    add(
        "--memory-limit-mib",
        type=_number(int, 256, 2**20),
        default=512,
        metavar="N",
        help="MiB per pair (default: 512)",
    )
    add("--all-methods", action="store_true", help="also write the verdict of each method: strict, symbolic, numeric")
    add("--ray", action="store_true", help="use the cluster at RAY_ADDRESS, or a private Ray if it is not set")
    return parser.parse_args(argv)


def _number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a number from {low} to {high}, got {text}")
        return value

    return parse


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress() -> Iterator[Callable[[int, float], None]]:
    """A bar on a terminal, otherwise a line every few seconds. Yields ``on_progress`` of ``grade_file``."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    start = time.perf_counter()
    if not sys.stdout.isatty():
        yield partial(_print_every_few_seconds, start, [start])
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[info]}"), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("grading", total=1.0, info="starting")

        def show(num_rows: int, frac: float) -> None:
            progress.update(task, completed=frac, info=_speed(num_rows, start))

        yield show


def _print_every_few_seconds(start: float, last: list[float], num_rows: int, frac: float) -> None:
    if time.perf_counter() - last[0] >= PLAIN_INTERVAL_S:
        last[0] = time.perf_counter()
        print(f"{frac:.0%}  {_speed(num_rows, start)}", flush=True)


def _speed(num_rows: int, start: float) -> str:
    return f"{num_rows:,} graded, {num_rows / (time.perf_counter() - start):,.0f}/s"


def _print_summary(tally: "Tally", seconds: float, unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    total = tally.outcomes.total()
    table = Table()
    table.add_column("outcome")
    for name in ("completions", "share"):
        table.add_column(name, justify="right")
    for outcome in ("correct", "incorrect", "unparsed", "timeout", "bad_gold"):
        table.add_row(outcome, *_count(tally.outcomes[outcome], total))
        for method in ("exact", "symbolic", "numeric") if outcome == "correct" else ():
            table.add_row(f"  by {method}", *_count(tally.methods[method], total), style="dim")
    Console().print(table)
    print(f"{total:,} completions in {seconds:.1f} s: {total / seconds:,.0f} items/s")
    for outcome, examples in tally.examples.items():
        for example in examples:
            print(f"{outcome}, {unit} {example.number}: gold {_short(example.gold)}, answer {_short(example.answer)}")


def _count(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / total:.2%}"


def _short(text: str | None) -> str:
    """One line that is safe on a terminal: unprintable characters are escaped."""
    return "-" if text is None else repr(text if len(text) <= 60 else f"{text[:60]}...")


if __name__ == "__main__":
    main()
