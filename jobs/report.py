"""Write the report of a run, a search or an evaluation: plots, summary.json and report.html."""

import argparse
from collections.abc import Sequence

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write the plots, summary.json and report.html of a run, a search or an evaluation."
    )
    parser.add_argument("run_dir", help="a run directory, such as output/experiments/exp_20261121_101500")
    parser.add_argument("--output-dir", help="write here and leave the run unchanged (default: the run directory)")
    args = parser.parse_args(argv)

    with user_errors():
        from pipeline.report import write_report

        print(write_report(args.run_dir, args.output_dir))


if __name__ == "__main__":
    main()
