"""``jobs/sft.py``, with learners that report a wait, as if their engines were slow."""

from importlib import import_module
from typing import Any

import actors.driver.learners
from actors.learner.feed import learn_stages
from actors.learner.setup import StageSetup
from jobs.sft import main
from pipeline.runs.waits import report_wait


def _learn_slowly(loop_config: dict[str, Any]) -> None:
    stages: Any = import_module("actors.learner.stages")

    sft_loop = stages.sft_loop

    def slow_loop(setup: StageSetup) -> None:
        sft_loop(setup)
        report_wait("completions", 60, 1800)

    stages.sft_loop = slow_loop
    learn_stages(loop_config)


if __name__ == "__main__":
    learners: Any = actors.driver.learners
    learners.learn_stages = _learn_slowly
    main()
