"""Compare evaluations: each model against the first, on the problems that both were asked."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "evaluations", nargs="+", type=Path, metavar="DIR", help="directories written by jobs/evaluate.py"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the comparison to this file")
    arguments = parser.parse_args(argv)
    with user_errors():
        from rich.console import Console

        from pipeline.evaluation.side_by_side import compare_evaluations, comparison_table
        from pipeline.files import write_json
        from pipeline.reports.page import writing_to

        result = compare_evaluations(arguments.evaluations)
        console = Console(width=120, highlight=False)
        console.print(comparison_table(result))
        for line in [*(comparison["sentence"] for comparison in result["comparisons"]), *result["notes"]]:
            console.print(line, markup=False)
        if arguments.json:
            with writing_to(arguments.json, "Choose another file with --json."):
                write_json(arguments.json, result)


if __name__ == "__main__":
    main()
