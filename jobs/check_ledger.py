"""Check a run's ledger: every scheduled group of its GRPO stages was used once, or dropped for a stated reason.

python jobs/check_ledger.py RUN_DIR

Prints one line for each violation, with its place, and exits with 1 if there are any. The run may still be in progress
or have been killed. A run without GRPO steps, or of an earlier version, has no ledger.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="a run directory, such as output/experiments/exp_20261121_101500")
    run_dir = parser.parse_args(argv).run_dir
    with user_errors():
        from pipeline.errors import CheckpointError
        from pipeline.runs.ledger_check import check_ledger

        if not run_dir.is_dir():
            raise CheckpointError(f"run directory must exist, got {run_dir}. Runs are under output/experiments/.")
        stages = sorted(run_dir.glob("stages/*/"))  # of a search
        reports = {path.name: check_ledger(path) for path in stages or [run_dir]}
    for name, report in reports.items():
        if stages:
            print(f"stage {name}:")
        if report is None:
            print("no ledger: there are no GRPO steps, or an earlier version made them")
        else:
            print(*report.violations, report, *report.notes, sep="\n")
    return int(any(report and report.violations for report in reports.values()))


if __name__ == "__main__":
    raise SystemExit(main())
