"""GRPO for Qwen2.5-1.5B-Instruct on GSM8K, or any other recipe of stages: ``--config``."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "grpo_qwen2.5_1.5b.yaml"


def train(config: Any, resumed: Any) -> None:
    from actors.driver.launch import run

    print(f"report: {run(config, resumed).path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
