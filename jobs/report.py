"""Draw the plots of a run or a search and write its summary.json and report.html.

python jobs/report.py output/experiments/exp_20261121_101500 [--output-dir DIR]
"""

import argparse
from collections.abc import Sequence

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the plots, summary.json and report.html of a run or a search.")
    parser.add_argument("run_dir", help="a run directory, such as output/experiments/exp_20261121_101500")
    parser.add_argument("--output-dir", help="write here and leave the run as it is (default: the run directory)")
    args = parser.parse_args(argv)

    with user_errors():
        from pipeline.report import write_report

        print(write_report(args.run_dir, args.output_dir))


if __name__ == "__main__":
    main()
