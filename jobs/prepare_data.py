"""Prepare data for training.

python jobs/prepare_data.py split --data NAME_OR_PATH --output DIR [--stratify-by level,type] [--test-fraction 0.2]
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import user_errors

if TYPE_CHECKING:
    from pipeline.data.splits import SplitResult

SPLIT = """Divide a data set into training and held-out problems.

Writes train.parquet and test.parquet (problem, solution, answer, level, type, source, id), stratified by level, to
DIR, and split.json, which says how they were made. Problems that differ only in case, white space, punctuation and
signs stay on one side. Rows without a usable level, answer or solution are reported and left out. A recipe reads DIR by

  data.name=DIR data.fields.question=problem data.fields.answer=answer data.fields.solution=solution
  data.fields.level=level data.fields.type=type data.fields.id=id data.answer_format=plain

The defaults suit MATH: qwedsacf/competition_math, or a copy of it. Embedded sets have fields of their own.
"""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = vars(_parse(argv))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with user_errors():
        from pipeline.data.splits import SplitSettings, prepare_split

        arguments["stratify_by"] = tuple(arguments["stratify_by"].split(","))
        del arguments["command"]
        try:
            split = prepare_split(SplitSettings(**arguments))
        except KeyboardInterrupt:
            print("interrupted: nothing was written.", file=sys.stderr)
            sys.exit(130)
        _print_counts("level", split.counts(lambda record: record.level))
        if "type" in arguments["stratify_by"]:
            _print_counts("type", split.counts(lambda record: record.type))
        _print_left_out(split)
        print(arguments["output"])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="split")
    split = commands.add_parser(
        "split",
        help="divide a data set into train.parquet and test.parquet",
        description=SPLIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = split.add_argument
    add("--data", required=True, metavar="NAME", help="hub data set, .parquet, .jsonl, directory or embedded:NAME")
    add("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add("--force", action="store_true", help="replace an earlier split in a DIR that is not empty")
    add("--subset", metavar="NAME", help="configuration of the hub data set")
    add("--split", metavar="NAME", help="what to read, such as train+test (default: train; in a directory every file)")
    add("--test-fraction", type=float, default=0.2, metavar="X", help="held out of every level (default: %(default)s)")
    add(
        "--stratify-by",
        default="level",
        choices=("level", "level,type"),
        metavar="BY",
        help="level (default) or level,type",
    )
    add("--seed", type=int, default=0, metavar="N", help="for the choice and order of rows (default: %(default)s)")
    add("--max-per-level", type=int, metavar="N", help="rows of a level to keep, both files together")
    add("--answer-format", default="boxed", choices=("boxed", "hash", "plain"), help="(default: %(default)s)")
    add("--answer-field", metavar="NAME", help="default: the solution field; answer if --answer-format is plain")
    for name, default in (("question", "problem"), ("solution", "solution"), ("level", "level"), ("type", "type")):
        none = "; '' for none" if name in ("solution", "type") else ""
        add(f"--{name}-field", default=default, metavar="NAME", help=f"(default: {default}{none})")
    return parser.parse_args(argv)


def _print_counts(by: str, counts: dict[str, dict[str, int]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_footer=True)
    total = {side: sum(count[side] for count in counts.values()) for side in ("train", "test")}
    table.add_column(by, "total")
    for heading, footer in zip(("train", "test", "both", "test share"), _cells(total), strict=True):
        table.add_column(heading, footer, justify="right")
    for name, count in counts.items():
        table.add_row(Text(name), *_cells(count))
    Console().print(table)


def _cells(count: dict[str, int]) -> tuple[str, ...]:
    both = count["train"] + count["test"]
    return f"{count['train']:,}", f"{count['test']:,}", f"{both:,}", f"{count['test'] / both:.2%}"


def _print_left_out(split: "SplitResult") -> None:
    print(f"rows left out: {split.left_out.counts.total():,}")
    for line in split.left_out.lines():
        print(f"  {line}")
    for note in split.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
