"""The verifier beside math-verify: items per second and core in one run, and memory over many items.

    python -m tests.benchmarks.verifier [--num-pairs 2000] [--num-items 100000] [--data ../shared/data]

All pairs are different and caches are cold. GSM8K and MATH are read from ``--data``; without it, worked sums and the
pairs of tests/data are used. Half of the completions end in another problem's answer.
"""

import argparse
import logging
import random
import resource
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from pipeline.config import EmbeddedSetsConfig
from pipeline.data.answers import last_boxed
from pipeline.data.arithmetic import arithmetic_rows
from pipeline.runs.records import read_jsonl
from pipeline.verifier import Grader
from tests.conftest import ROOT

Pair = tuple[str, str]
_ENDINGS = ("<answer>\n{}\n</answer>", "#### {}", "The answer is: {}", "So the final answer is $\\boxed{{{}}}$.")


def with_other_answers(worked: list[Pair], seed: int = 0) -> list[Pair]:
    """(worked solution, gold) -> (completion, gold): every second one ends in the answer of another problem."""
    rng = random.Random(seed)
    pairs = []
    for number, (solution, gold) in enumerate(worked):
        answer = gold if number % 2 else rng.choice(worked)[1]
        pairs.append((f"{solution}\n{_ENDINGS[number // 2 % 4].format(answer)}", gold))
    return list(dict.fromkeys(pairs))


def gsm8k_pairs(data: Path, count: int) -> list[Pair]:
    path = data / "gsm8k/train.jsonl"
    if path.exists():
        texts = [row["answer"] for row in read_jsonl(path)]
        parts = [text.rpartition("####") for text in texts[:count]]
        return with_other_answers([(solution.strip(), gold.strip()) for solution, _, gold in parts])
    rows = arithmetic_rows(EmbeddedSetsConfig(train_per_level=count // 5, worked_per_level=[count] * 5), "train")
    return with_other_answers([(row["solution"], row["answer"]) for row in rows])


def math_pairs(data: Path, count: int) -> list[Pair]:
    path = data / "math/train.parquet"
    if path.exists():
        import pyarrow.parquet

        solutions = [str(s) for s in pyarrow.parquet.read_table(path)["solution"]]
        chosen = random.Random(0).sample(solutions, min(count, len(solutions)))
        return with_other_answers([(s, last_boxed(s) or "1") for s in chosen])
    rows = read_jsonl(ROOT / "tests/data/graded_pairs.jsonl")
    return [(row["completion"], row["gold"]) for row in rows[:count]]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process and its children: the price on one core, whatever else the machine does."""
    pids = [psutil.Process(), *psutil.Process().children(recursive=True)]
    before = sum(sum(process.cpu_times()[:2]) for process in pids)
    work()
    return sum(sum(process.cpu_times()[:2]) for process in pids if process.is_running()) - before


def our_seconds(pairs: list[Pair]) -> float:
    with Grader(num_children=1) as grader:
        grader.grade("<answer>\\sqrt{4}</answer>", "2")  # starts the child
        return cpu_seconds(lambda: [grader.grade_batch(pairs[i : i + 64]) for i in range(0, len(pairs), 64)])


def their_seconds(pairs: list[Pair]) -> float:
    from math_verify import parse, verify

    parse("$1$")
    return cpu_seconds(lambda: [verify(parse(gold), parse(completion)) for completion, gold in pairs])


def memory_rows(num_items: int, pairs: list[Pair]) -> list[list[str]]:
    """Memory of the caller and of its children, six times over the run. Every item differs from all before."""
    rows = []
    with Grader(num_children=1) as grader:
        for number in range(num_items):
            completion, gold = pairs[number % len(pairs)]
            grader.grade(f"{number}. {completion} + {number} - {number}", f"{gold} + {number} - {number}")
            if number == num_items // 10 or (number + 1) % (num_items // 5) == 0:
                children = sum(psutil.Process(pid).memory_info().rss for pid in grader.child_pids()) / 2**20
                mine = psutil.Process().memory_info().rss / 2**20
                rows.append([str(number + 1), f"{mine:.0f}", f"{children:.0f}"])
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-pairs", type=int, default=2000)
    parser.add_argument("--num-items", type=int, default=0, help="measure memory over this many (100000 takes minutes)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    arguments = parser.parse_args(argv)
    logging.disable()
    table = Table("pairs", "number", "ours, items/s/core", "math-verify", "ratio")
    samples = {
        "GSM8K": gsm8k_pairs(arguments.data, arguments.num_pairs),
        "MATH": math_pairs(arguments.data, arguments.num_pairs),
    }
    for name, pairs in samples.items():
        ours, theirs = len(pairs) / our_seconds(pairs), len(pairs) / their_seconds(pairs)
        table.add_row(name, str(len(pairs)), f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.1f}")
    Console().print(table)
    if arguments.num_items:
        memory = Table("items", "caller, MiB", "children, MiB")
        for row in memory_rows(arguments.num_items, samples["MATH"]):
            memory.add_row(*row)
        Console().print(memory)
    print(f"peak of the caller: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
