"""Train the router of an explicit memory alone: the stages of kind router of a recipe."""

from pathlib import Path
from typing import Any

from actors.driver.job import run_job

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "memory_smollm2.yaml"


def train(config: Any, resumed: Any) -> None:
    from actors.driver.launch import run
    from pipeline.errors import ConfigError

    stages = [stage for stage in config.stages if stage.kind == "router"]
    if not stages:
        raise ConfigError("stages must have one of kind router, got none. Use a recipe such as memory_smollm2.yaml.")
    run_directory = run(config.model_copy(update={"stages": stages}), resumed)
    print(f"report: {run_directory.path / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    run_job(__doc__, DEFAULT_CONFIG, train, argv)


if __name__ == "__main__":
    main()
