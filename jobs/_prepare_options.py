"""The options of ``prepare_data.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import positive

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

SPLIT = """Divide a data set into training and held-out problems.

Writes to DIR train.parquet and test.parquet (problem, solution, answer, level, type, source, id), stratified by level,
and split.json, which says how they were made. Problems that differ only in case, white space, punctuation and signs
stay on one side. Rows without a usable level, answer or solution are reported and left out. A recipe reads DIR with

  data.name=DIR data.fields.question=problem data.fields.answer=answer data.fields.solution=solution
  data.fields.level=level data.fields.type=type data.fields.id=id data.answer_format=plain

The defaults suit MATH: qwedsacf/competition_math, or a copy of it. Embedded sets have fields of their own.
"""
STUDENT = """Make the data that shows what written problems are worth to a student.

Reads the written problems that were kept, and draws real training problems with as many tokens, of the same levels and
lengths. Exact and near copies of held-out problems are counted and left out. Writes to DIR written/ and real/, each
with train.parquet and test.parquet (question, answer, solution, level, type, id; the same held-out problems), and
student.json, which says how they were made. configs/student_demo.yaml trains on both.
"""
RATE = """Give every problem a quality, a difficulty and a topic, and keep those that pass the filters.

Writes to DIR train.parquet (problem, solution, answer, level, difficulty, topic, quality, quality_reasons, source, id)
and a data card, card.json and card.md. Quality is in [0, 1]; quality_reasons says what lowers it. Difficulty is from 1
to 10, and level is its name. Without filters every row with a problem and an answer is kept. Rows are in random order.
A recipe reads DIR with

  data.name=DIR data.fields.question=problem data.fields.answer=answer data.fields.solution=solution
  data.fields.level=level data.fields.type=topic data.fields.id=id data.answer_format=plain

Columns are found by their usual names. If there is no column of answers, as in MATH, answers are read from the last box
of the solution.
"""


OMCQ = """Convert object multiple-choice rows to conversations.

A row is {"target": [{"question": ..., "options": "A:...,B:...,C:...", "correct_answer": ...}]}, where the answer is A,
A:Germany or Germany. Writes {"conversations": [{"role": "user", ...}, {"role": "assistant", ...}]}, in the order of
the rows. Rows that cannot be used are counted by reason; FILE.rejected.jsonl shows the first of each reason, and
FILE.json says how the file was made. Large files are converted with Ray Data. Train with data.layout=conversations.
"""
FACTS = """Make multiple-choice questions from facts, and the sentences that answer them, for the explicit memory.

A fact has subject, relation_id, relation_label, template (with [X] and [Y]) and object. Writes to DIR train.jsonl,
test.jsonl, knowledge.jsonl (a sentence for each fact) and facts.json. Wrong options are objects of the same
relation that no fact relates to the subject. All facts of one subject and relation are on one side.
"""
KNOWLEDGE = """Make the knowledge of an explicit memory from plain sentences.

A source is a text file with one sentence per line, or .jsonl with text. Writes {"id", "text"} rows. Empty rows and
duplicates are rejected and counted. With --model, counts the sentences that are longer than an entry.
"""
CHECK = """Show what SFT would learn from a file of conversations, and check that all of it can be learned.

Prints examples with the learned text in 【】 (on a terminal in green), and lengths in tokens. Exits with code 1 if a
row is malformed, too long, or has nothing to learn.
"""


def parse(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. ``command`` is the name of the subcommand."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "split | rate | student | omcq | omcq-from-facts | knowledge | check"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    for add in (_add_split, _add_rate, _add_student, _add_omcq, _add_facts, _add_knowledge, _add_check):
        add(commands)
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
    add(
        "--test-fraction",
        type=float,
        default=0.2,
        metavar="X",
        help="share of every level to hold out (default: %(default)s)",
    )
    add(
        "--stratify-by",
        default="level",
        choices=("level", "level,type"),
        metavar="BY",
        help="level (default) or level,type",
    )
    add("--seed", type=int, default=0, metavar="N", help="for the choice and order of rows (default: %(default)s)")
    add("--max-per-level", type=int, metavar="N", help="most rows of a level to keep, both files together")
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
    add("--licence", nargs="+", default=(), metavar="TEXT", help="licence of each data set, in order, for the card")
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
        help="the model whose tokenizer counts tokens (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="for the choice and order of problems (default: %(default)s)")
    add("--max-problems", type=int, metavar="N", help="written problems to use (default: all that were kept)")


def _add_omcq(commands: "Commands") -> None:
    add = commands.add_parser(
        "omcq",
        help="convert object multiple-choice rows to conversations",
        description=OMCQ,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("sources", nargs="+", type=Path, metavar="SOURCE", help=".jsonl or .json (rows, or one array), maybe .gz")
    add("--output", required=True, type=Path, metavar="FILE", help="a .jsonl file")
    add("--force", action="store_true", help="replace FILE if it exists")
    add("--max-samples", type=int, metavar="N", help="stop after N converted rows")
    add("--request", metavar="TEXT", help="last line of the question (default: 请选择正确答案。); '' for none")
    add(
        "--answer",
        choices=("text", "letter", "option"),
        help="what the assistant says: Germany (default), A, or A: Germany",
    )
    add("--answer-lead", metavar="TEXT", help="put before the answer, such as a space (default: nothing)")
    add("--max-chars", type=int, metavar="N", help="longest question, options or answer (default: 20000)")


def _add_facts(commands: "Commands") -> None:
    add = commands.add_parser(
        "omcq-from-facts",
        help="make multiple-choice questions and knowledge entries from facts",
        description=FACTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("--facts", required=True, type=Path, metavar="FILE", help=".jsonl or .parquet")
    add("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add("--force", action="store_true", help="replace an earlier DIR, with all that is in it")
    add("--num-options", type=int, default=3, metavar="N", help="options of a question (default: %(default)s)")
    add("--test-fraction", type=float, default=0.2, metavar="X", help="facts held out (default: %(default)s)")
    add("--num-test", type=int, metavar="N", help="number of test questions, instead of --test-fraction")
    add("--max-facts", type=int, metavar="N", help="facts to ask about, both files together (default: all)")
    add(
        "--bank-size",
        type=int,
        metavar="N",
        help="entries in all: those of the questions, filled up with others (default: no others)",
    )
    add("--relations", nargs="+", default=(), metavar="R", help="ids or labels of relations (default: all)")
    add(
        "--distractors",
        default="frequency",
        choices=("frequency", "uniform"),
        help="draw wrong options as often as they occur in the relation (default), or uniformly",
    )
    add("--request", metavar="TEXT", help="last line of a question (default: Answer with the text ...); '' for none")
    add("--answer-lead", metavar="TEXT", help="put before the answer (default: one space)")
    add("--seed", type=int, default=0, metavar="N", help="for all choices (default: %(default)s)")


def _add_knowledge(commands: "Commands") -> None:
    add = commands.add_parser(
        "knowledge",
        help="make knowledge entries from plain sentences",
        description=KNOWLEDGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("sources", nargs="+", type=Path, metavar="SOURCE", help="text with one sentence per line, or .jsonl with text")
    add("--output", required=True, type=Path, metavar="FILE", help="a .jsonl file")
    add("--force", action="store_true", help="replace FILE if it exists")
    add("--model", metavar="NAME", help="the model whose tokenizer measures the sentences")
    add("--knowledge-length", type=positive, default=16, metavar="N", help="tokens of an entry (default: %(default)s)")
    add("--max-samples", type=positive, metavar="N", help="stop after N entries")


def _add_check(commands: "Commands") -> None:
    add = commands.add_parser(
        "check",
        help="show what SFT would learn from a file of conversations",
        description=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument
    add("file", type=Path, metavar="FILE", help=".jsonl or .parquet of conversations")
    add("--model", required=True, metavar="NAME", help="the model whose tokenizer and chat template are used")
    add("--max-length", type=int, default=1024, metavar="N", help="as sft.max_length (default: %(default)s)")
    add("--examples", type=int, default=3, metavar="N", help="conversations to show (default: %(default)s)")
