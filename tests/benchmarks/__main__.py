"""``make bench``: the benchmarks of training and grading in turn. ``make bench ARGS="grpo sft"`` runs two of them.

    python -m tests.benchmarks [phases] [grpo] [sft] [verifier] [rollouts] [start]

Each is a module beside this one, whose docstring says what it measures; alone, it takes arguments of its own:
``python -m tests.benchmarks.grpo --help``. docs/benchmarks.md has the newest results.
"""

import sys
from importlib import import_module

NAMES = ("phases", "grpo", "sft", "verifier", "rollouts", "start")


def main() -> None:
    names = sys.argv[1:] or NAMES
    if unknown := set(names) - set(NAMES):
        sys.exit(f"benchmarks are {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    for name in names:
        print(f"== {name}", flush=True)
        import_module(f"tests.benchmarks.{name}").main([])


if __name__ == "__main__":
    main()
