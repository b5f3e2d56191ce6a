"""Looks for test problems in the training data of the models that are evaluated."""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from actors.driver.plan import plan_stages
from pipeline.config import EvaluationConfig
from pipeline.data import load_problems
from pipeline.errors import DataError, GradusError
from pipeline.evaluation.datasets import Loaded, split_questions
from pipeline.evaluation.models import EvalModel
from pipeline.evaluation.overlap import Overlap, TrainingQuestions
from pipeline.evaluation.problems import EvalProblem
from pipeline.runs.directory import RunDirectory

logger = logging.getLogger(__name__)


class TrainingGuard:
    """Finds problems that the models were trained on. The training data is read once, by the constructor."""

    def __init__(self, config: EvaluationConfig, models: Sequence[EvalModel]) -> None:
        self.notes: dict[str, str] = {}
        """By model: how many training questions were searched, or why they could not be."""
        self._by_model: dict[str, TrainingQuestions] = {}
        named = [question for name in config.guard.train_data for question in split_questions(name, "train", config)]
        trained_on = cache(_trained_on)
        for model in models:
            own, failure = trained_on(model.run.path) if model.run else ([], None)
            trained = self._by_model[model.label] = TrainingQuestions([*named, *own])
            self.notes[model.label] = _guard_note(len(trained), failure)

    def find(self, model: str, problem: EvalProblem) -> Overlap | None:
        return self._by_model[model].find(problem.question)

    def without_seen(self, data: Loaded) -> Loaded:
        """The data without problems that any model was trained on, so that all models are asked the same ones."""
        kept = [p for p in data.problems if not any(trained.find(p.question) for trained in self._by_model.values())]
        if not kept:
            raise DataError(
                f"dataset {data.name} must have problems left to ask, got 0 of {len(data.problems)}: all are in the "
                "training data. Set guard.leave_out=false."
            )
        return data.without_seen(kept)


def _trained_on(run: Path) -> tuple[list[str], GradusError | None]:
    """Questions of all stages of a run, or the reason why its data is no longer available."""
    try:
        config = RunDirectory(run).load_config()
        stages = plan_stages(config, load_problems(config.data, "train"))
    except GradusError as error:
        logger.warning("training data of %s cannot be searched: %s", run, error)
        return [], error
    return [problem.question for stage in stages for problem in stage.problems], None


def _guard_note(num_questions: int, failure: GradusError | None) -> str:
    if failure:
        return f"its training data could not be searched: {failure}"
    return f"{num_questions:,} training questions searched" if num_questions else "training data not known"
