"""``jobs/sft.py``, with learners that report a wait, as if their engines were slow."""

from typing import Any

from actors.driver import learners
from actors.learner.feed import learn_stages
from actors.learner.setup import StageSetup
from jobs.sft import main
from pipeline.runs.waits import report_wait


def _learn_slowly(loop_config: dict[str, Any]) -> None:
    from actors.learner import stages

    sft_loop = stages.sft_loop

    def slow_loop(setup: StageSetup) -> None:
        sft_loop(setup)
        report_wait("completions", 60, 1800)

    stages.sft_loop = slow_loop
    learn_stages(loop_config)


if __name__ == "__main__":
    learners.learn_stages = _learn_slowly
    main()
