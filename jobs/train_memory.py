"""Train an explicit memory of a frozen model: its router and its fusion, or any other recipe of such stages."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "memory_smollm2.yaml"


def train(config: Any, resumed: Any) -> None:
    from actors.driver.launch import run

    print(f"report: {run(config, resumed).path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
