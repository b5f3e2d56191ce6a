"""Train only the router of an explicit memory: the recipe's router stages, or else one with its router settings."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "memory_smollm2.yaml"


def train(config: Any, resumed: Any) -> None:
    from actors.driver.launch import run
    from pipeline.config import StageConfig, with_settings

    stages = [stage for stage in config.stages if stage.kind == "router"]
    stages = stages or [StageConfig(name="router", kind="router")]
    config = with_settings(config, {"stages": [stage.model_dump() for stage in stages]})
    run_directory = run(config, resumed)
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
