"""``jobs/sft.py``, with learners that report a wait, as if their engines were slow."""

from actors.driver import stage
from actors.learner.setup import StageSetup
from jobs.sft import main
from pipeline.runs.waits import report_wait

_run_learner = stage._run_learner


def _run_slow_learner(loop_config: dict[str, StageSetup]) -> None:
    _run_learner(loop_config)
    report_wait("completions", 60, 1800)


if __name__ == "__main__":
    stage._run_learner = _run_slow_learner
    main()
