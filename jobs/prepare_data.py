"""Prepare data for training.

python jobs/prepare_data.py split --data NAME_OR_PATH --output DIR [--stratify-by level,type] [--test-fraction 0.2]
python jobs/prepare_data.py rate --data NAME_OR_PATH ... --output DIR [--min-quality 0.8] [--levels L ...]
python jobs/prepare_data.py student --written RUN_OR_FILE --data embedded:stories --output DIR
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import user_errors

if TYPE_CHECKING:
    from pipeline.data.splits.records import LeftOut

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

SPLIT = """Divide a data set into training and held-out problems.

Writes train.parquet and test.parquet (problem, solution, answer, level, type, source, id), stratified by level, to
DIR, and split.json, which says how they were made. Problems that differ only in case, white space, punctuation and
signs stay on one side. Rows without a usable level, answer or solution are reported and left out. A recipe reads DIR by

  data.name=DIR data.fields.question=problem data.fields.answer=answer data.fields.solution=solution
  data.fields.level=level data.fields.type=type data.fields.id=id data.answer_format=plain

The defaults suit MATH: qwedsacf/competition_math, or a copy of it. Embedded sets have fields of their own.
"""
STUDENT = """Make the data that shows what written problems are worth to a student.

Reads the written problems that were kept, and draws real training problems with as many tokens, of the same levels and
lengths. Exact and near copies of held-out problems are counted and left out. Writes written/ and real/, each with
train.parquet and test.parquet (question, answer, solution, level, type, id; the same held-out problems), and
student.json, which says how they were made, to DIR. configs/student_demo.yaml trains on both.
"""
RATE = """Give every problem a quality, a difficulty and a topic, and keep those that pass the filters.

Writes train.parquet (problem, solution, answer, level, difficulty, topic, quality, quality_reasons, source, id) to DIR,
and a data card, card.json and card.md. Quality is in [0, 1]; quality_reasons says what lowers it. Difficulty is from 1
to 10, and level is its name. Without filters every row with a problem and an answer is kept. Rows are in random order.
A recipe reads DIR by

  data.name=DIR data.fields.question=problem data.fields.answer=answer data.fields.solution=solution
  data.fields.level=level data.fields.type=topic data.fields.id=id data.answer_format=plain

Columns are found by their usual names. Answers are read from the last box of the solution where there is no column of
answers, as in MATH.
"""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = vars(_parse(argv))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare = {"split": _split, "rate": _rate, "student": _student}[arguments.pop("command")]
    with user_errors("interrupted: nothing was written."):
        prepare(arguments)
        print(arguments["output"])


def _split(arguments: dict[str, Any]) -> None:
    from pipeline.data.splits import SplitSettings, prepare_split

    arguments["stratify_by"] = tuple(arguments["stratify_by"].split(","))
    split = prepare_split(SplitSettings(**arguments))
    _print_counts("level", split.counts(lambda record: record.level))
    if "type" in arguments["stratify_by"]:
        _print_counts("type", split.counts(lambda record: record.type))
    _print_left_out(split.left_out)
    for note in split.notes:
        print(f"note: {note}")


def _rate(arguments: dict[str, Any]) -> None:
    from pipeline.questions.ratings import RateSettings, rate, write_ratings

    settings = RateSettings(**arguments)
    ratings = rate(settings)
    write_ratings(settings, ratings)
    mean = sum(ratings.qualities) / len(ratings.qualities)
    print(f"kept {len(ratings.kept):,} of {len(ratings.qualities):,} rated problems, whose mean quality is {mean:.2f}")
    _print_left_out(ratings.left_out)


def _student(arguments: dict[str, Any]) -> None:
    from pipeline.questions.student import StudentSettings, prepare_student

    data = prepare_student(StudentSettings(**arguments))
    for side in data.train:
        counts = data.counts(side)
        levels = ", ".join(f"{level}: {count:,}" for level, count in counts["levels"].items())
        print(f"{side}: {counts['num_problems']:,} problems, {counts['num_tokens']:,} tokens (by level: {levels})")
        for reason, count in data.left_out[side].items():
            print(f"  left out: {count:,} {reason}")
    print(f"held out: {len(data.test):,} problems")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="split | rate | student")
    _add_split(commands)
    _add_rate(commands)
    _add_student(commands)
    return parser.parse_args(argv)


def _add_split(commands: "Commands") -> None:
    add = commands.add_parser(
        "split",
        help="divide a data set into train.parquet and test.parquet",
        description=SPLIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
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


def _add_rate(commands: "Commands") -> None:
    add = commands.add_parser(
        "rate",
        help="rate quality, difficulty and topic of problems",
        description=RATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("--data", required=True, nargs="+", metavar="NAME", help="hub data sets, files, directories or embedded:NAME")
    add("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add("--min-quality", type=float, default=0.0, metavar="X", help="lowest quality to keep (default: %(default)s)")
    add("--levels", nargs="+", default=(), metavar="L", help="elementary intermediate advanced competition olympiad")
    add("--topics", nargs="+", default=(), metavar="T", help="algebra geometry 'number theory' combinatorics ...")
    add(
        "--solve-rates", type=Path, metavar="FILE", help="measured solve rates: eval_results.jsonl or a table of shares"
    )
    add("--licence", nargs="+", default=(), metavar="TEXT", help="of each data set in order, for the data card")
    add("--subset", metavar="NAME", help="configuration of the hub data sets")
    add("--split", metavar="NAME", help="what to read, such as train+test (default: train; in a directory every file)")
    add("--answer-format", choices=("plain", "boxed", "hash"), help="(default: plain if there is a column of answers)")
    add("--seed", type=int, default=0, metavar="N", help="for the order of rows (default: %(default)s)")
    for name in ("question", "answer", "solution", "level", "type"):
        add(f"--{name}-field", metavar="NAME", help="(default: its usual name)")


def _add_student(commands: "Commands") -> None:
    add = commands.add_parser(
        "student",
        help="take written problems, and as many tokens of real ones",
        description=STUDENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add(
        "--written",
        required=True,
        type=Path,
        metavar="PATH",
        help="run of jobs/questions_gen.py, directory of jobs/generate_problems.py, or its problems.parquet or .jsonl",
    )
    add("--data", required=True, metavar="NAME", help="real problems: embedded:NAME, or a directory made by split")
    add("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add(
        "--model",
        default="embedded:smollm2-135m-instruct",
        metavar="NAME",
        help="whose tokenizer counts (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="for the choice and order of problems (default: %(default)s)")
    add("--max-problems", type=int, metavar="N", help="written problems to use (default: all that were kept)")


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


def _print_left_out(left_out: "LeftOut") -> None:
    print(f"rows left out: {left_out.counts.total():,}")
    for line in left_out.lines():
        print(f"  {line}")


if __name__ == "__main__":
    main()
