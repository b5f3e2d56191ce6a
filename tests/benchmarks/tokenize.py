"""A large data set on its way to the learner: table, tokens by Ray Data, random examples. Rows/s and memory.

    python -m tests.benchmarks.tokenize [--num-rows 395000] [--num-examples 2000]

Rows are like MetaMathQA's: about 200 letters of query and 600 of response. The tokenizer is the embedded model's.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from actors.driver.cluster import connected_ray
from actors.driver.encode import make_tokens
from pipeline.config import ModelConfig
from pipeline.curriculum.examples import ExampleTable
from pipeline.data.table import load_table
from pipeline.models.embedded import NAME
from tests.support.tables import PeakMemory, metamath_like


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rows", type=int, default=395_000)
    parser.add_argument("--num-examples", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        config = metamath_like(Path(folder) / "rows.jsonl", arguments.num_rows)
        for run in ("first", "second"):
            print(f"{run} run", flush=True)
            _run(config, Path(folder) / "cache", arguments.num_examples, memory)
    print(f"peak PSS of all processes: {memory.above_start_mib:.0f} MiB above {memory.start_mib:.0f} at the start")
    largest = sorted(memory.at_peak.items(), key=lambda item: -item[1])[:8]
    print("at the peak: " + ", ".join(f"{name} {size:.0f}" for name, size in largest))


def _run(config, cache: Path, num_examples: int, memory: PeakMemory) -> None:
    started = time.perf_counter()
    problems = load_table(config, "train", cache)
    _report("table", len(problems), started, memory)
    with connected_ray():
        started = time.perf_counter()
        tokens = make_tokens(problems, ModelConfig(name=NAME), chat=False)
        _report("tokens", len(problems), started, memory)
        started = time.perf_counter()
        examples = ExampleTable(problems, tokens, 1024)
        num_tokens = sum(
            len(examples[row].tokens) for row in random.Random(0).sample(range(len(examples)), num_examples)
        )
        _report(f"examples of {num_tokens / num_examples:.0f} tokens", num_examples, started, memory)
    sizes = [
        f"{path.name} {path.stat().st_size / 2**20:.0f} MiB" for path in sorted(problems.path.parent.glob("*.arrow"))
    ]
    print(f"  {', '.join(sizes)}", flush=True)


def _report(what: str, count: int, started: float, memory: PeakMemory) -> None:
    seconds = time.perf_counter() - started
    print(
        f"  {what}: {count} in {seconds:.1f} s, {count / seconds:.0f}/s; so far {memory.above_start_mib:.0f} MiB above",
        flush=True,
    )


if __name__ == "__main__":
    main()
