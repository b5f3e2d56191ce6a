"""Evaluate a model with an explicit memory on questions with options: with the right bank, without, with a shuffled one
and with swapped facts."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli import positive, user_errors


def main(argv: Sequence[str] | None = None) -> None:
    arguments = vars(_parser().parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with user_errors():
        from pipeline.config.evaluation import LoadingConfig
        from pipeline.evaluation.memory.loading import Source
        from pipeline.evaluation.memory.run import EvaluationSettings, evaluate_memory

        loading = LoadingConfig(trust_remote_code=arguments.pop("trust_remote_code"), dtype=arguments.pop("dtype"))
        named = {name: arguments.pop(name) for name in ("run", "memory", "model", "knowledge")}
        settings = EvaluationSettings(Source(**named, loading=loading), **arguments)
        show(evaluate_memory(settings), settings.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--run", metavar="RUN_DIR", help="a finished run, with a memory or without; latest: the newest one")
    add("--memory", type=Path, metavar="FILE", help="memory_step_N.safetensors, instead of the run's final memory")
    add("--model", help="a model without memory, such as a LoRA run or an adapter; with --memory: its backbone")
    add("--questions", type=Path, required=True, metavar="FILE", help="test.jsonl of omcq-from-facts")
    add("--train-questions", type=Path, metavar="FILE", help="train.jsonl: shows what the most frequent objects score")
    add("--knowledge", type=Path, metavar="FILE", help="entries of the bank (default: those of the memory's training)")
    add("--output", type=Path, required=True, metavar="DIR", help="a new directory")
    add("--conditions", nargs="+", default=(), metavar="NAME", help="default: all. docs/memory_evaluation.md")
    add("--max-questions", type=int, metavar="N", help="ask N of the questions, drawn at random")
    add("--texts", nargs="+", default=(), metavar="DATASET", help="measure perplexity on these, such as gsm8k math")
    add("--data-root", metavar="DIR", help="local copies of registered data sets")
    add("--max-texts", type=int, default=200, metavar="N", help="texts of each data set (default: %(default)s)")
    add("--max-text-tokens", type=int, default=1024, metavar="N", help="leave longer texts out (default: %(default)s)")
    add("--batch-size", type=int, default=32, metavar="N", help="questions asked at once (default: %(default)s)")
    add("--max-new-tokens", type=positive, default=24, metavar="N", help="tokens of an answer (default: %(default)s)")
    add("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="precision of models without a run")
    add("--seed", type=int, default=0, help="seed of shuffling, swapping and drawing (default: %(default)s)")
    add("--force", action="store_true", help="replace the output directory")
    add("--trust-remote-code", action="store_true", help="run Python code that comes with the model; read it first")
    return parser


def show(summary: dict[str, Any], output: Path) -> None:
    """The accuracies, and where the rest is."""
    for name, found in summary["conditions"].items():
        shares = ", ".join(
            f"{key} {found[key]['value']:.1%} [{found[key]['interval'][0]:.1%}, {found[key]['interval'][1]:.1%}]"
            for key in ("exact", "startswith", "contains", "ranked", "keeps_exact")
            if key in found
        )
        print(f"{name}: {shares}")
    print(f"page: {output / 'memory.html'}")


if __name__ == "__main__":
    main()
