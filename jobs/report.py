"""Draw a run's plots and write its summary.json and report.html.

python jobs/report.py output/experiments/exp_20261121_101500 [--output-dir DIR]
"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the plots, summary.json and report.html of a run.")
    parser.add_argument("run_dir", help="a run directory, such as output/experiments/exp_20261121_101500")
    parser.add_argument("--output-dir", help="write here and leave the run as it is (default: the run directory)")
    args = parser.parse_args(argv)

    from pipeline.errors import GradusError
    from pipeline.report import write_report

    try:
        print(write_report(args.run_dir, args.output_dir))
    except GradusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
