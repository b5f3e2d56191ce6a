"""Chooses the problems of every step of a GRPO stage, once for each step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.config.samplers import SamplerConfig
from pipeline.curriculum.examples import Example, StageExamples
from pipeline.curriculum.samplers.base import Outcome, StageLength
from pipeline.curriculum.samplers.dynamic import num_asked
from pipeline.curriculum.samplers.stage import StageSampler


class Choice(NamedTuple):
    """A problem to ask."""

    example: Example
    row: int | None
    """Row among the stage's own problems; None if it is replayed, or there is no sampler."""


class StepChoices:
    """Chooses with the stage's sampler or, without one, in the order of its examples.

    When engines work ahead, a step's problems are chosen before the steps in between have been measured. A checkpoint
    therefore holds what was chosen for later steps.

    Args:
        settings: None without a sampler.
        seed: of the run, and the stage's name.
        length: of the stage.
        num_shares: number of learners, which take equal shares of what is asked.
        state: of an earlier attempt of the stage; may be empty.
    """

    def __init__(
        self,
        examples: StageExamples,
        settings: SamplerConfig | None,
        seed: Sequence[object],
        length: StageLength,
        num_shares: int,
        state: dict[str, Any],
    ) -> None:
        self._examples, self._num_shares = examples, num_shares
        self.dynamic = settings.dynamic if settings and settings.name == "dynamic" else None
        self._sampler = StageSampler(settings, list(examples.problems.heads()), length, *seed) if settings else None
        self._chosen: dict[int, list[int]] = {}
        """Rows of steps that are not done."""
        self.num_empty_steps = 0
        """In a row, up to the last one, in which no group taught anything."""
        if self._sampler and state:
            self._sampler.load(state["sampler"])
            self._chosen = {int(step): rows for step, rows in state["chosen"].items()}
            self.num_empty_steps = state["num_empty_steps"]

    def of(self, step: int) -> list[Choice]:
        """The problems of a step, counted from 0 within the stage: its batch and, with oversampling, more."""
        if self._sampler is None:
            return [Choice(example, None) for example in self._examples.batch(step)]
        replayed = self._examples.replayed(step)
        if step not in self._chosen:
            num_new = replayed.count(None)
            num_more = num_asked(self.dynamic, num_new) - num_new if self.dynamic else 0
            self._chosen[step] = self._sampler.choose(step, num_new + self._even(num_more))
        rows = iter(self._chosen[step])
        batch = [self._new(next(rows)) if example is None else Choice(example, None) for example in replayed]
        return [*batch, *map(self._new, rows)]

    def more(self, step: int, count: int) -> list[Choice]:
        """At least ``count`` more problems, to replace groups of the step that were dropped."""
        assert self._sampler is not None
        return [self._new(row) for row in self._sampler.choose_more(step, self._even(count))]

    def done(self, step: int, outcomes: Sequence[Outcome], is_empty: bool = False) -> dict[str, Any]:
        """Take in all groups of a step, of all learners, in their order. Returns the state to resume from.

        Args:
            is_empty: True if no group of the step teaches anything.
        """
        if self._sampler is None:
            return {}
        self._chosen.pop(step, None)
        self._sampler.observe(step, outcomes)
        self.num_empty_steps = self.num_empty_steps + 1 if is_empty else 0
        return {
            "sampler": self._sampler.state(),
            "chosen": {str(each): rows for each, rows in self._chosen.items()},
            "num_empty_steps": self.num_empty_steps,
        }

    def _new(self, row: int) -> Choice:
        return Choice(self._examples.table[row], row)

    def _even(self, count: int) -> int:
        """Rounded up, so that every learner has the same share."""
        return count + -count % self._num_shares


def asked_rows(state: dict[str, Any]) -> list[int] | None:
    """Rows of the stage's own problems that were asked, from the state of its choices; None without a sampler."""
    rows: list[int] | None = state["sampler"]["history"]["rows"] if state else None
    return rows
