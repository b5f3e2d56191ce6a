"""Chooses the problems of every step of a GRPO stage, once for each step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.curriculum.examples import Example, StageExamples
from pipeline.curriculum.samplers.base import Outcome
from pipeline.curriculum.samplers.dynamic import num_asked
from pipeline.curriculum.samplers.stage import StageSampler


class Choice(NamedTuple):
    """A problem to ask."""

    example: Example
    row: int | None
    """As in StageProblems; None without a sampler."""


class StepChoices:
    """Chooses with the stage's sampler or, without one, in the order of its examples.

    When engines work ahead, a step's problems are chosen before the steps in between have been measured. A checkpoint
    therefore holds what was chosen for later steps.

    Args:
        sampler: None without one.
        num_shares: number of learners, which take equal shares of what is asked.
        state: of an earlier attempt of the stage; may be empty.
    """

    def __init__(
        self,
        examples: StageExamples,
        sampler: StageSampler | None,
        num_shares: int,
        state: dict[str, Any],
    ) -> None:
        self._examples, self._sampler, self._num_shares = examples, sampler, num_shares
        self.dynamic = sampler.dynamic if sampler else None
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
        places, num_own = self._examples.replayed_rows(step), len(self._examples.problems)
        if step not in self._chosen:
            num_new = places.count(None)
            num_more = num_asked(self.dynamic, num_new) - num_new if self.dynamic else 0
            own = self._sampler.choose(step, num_new + self._even(num_more))
            self._chosen[step] = own + self._sampler.replayed(
                step, [num_own + row for row in places if row is not None]
            )
        chosen = self._chosen[step]
        own_rows, replayed = (iter([row for row in chosen if (row < num_own) == is_own]) for is_own in (True, False))
        # A checkpoint of an earlier version holds a step's own rows only.
        batch = [next(own_rows) if row is None else next(replayed, num_own + row) for row in places]
        return [self._choice(row) for row in (*batch, *own_rows)]

    def more(self, step: int, count: int) -> list[Choice]:
        """At least ``count`` more problems, to replace groups of the step that were dropped."""
        assert self._sampler is not None
        return [self._choice(row) for row in self._sampler.choose_more(step, self._even(count))]

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

    def _choice(self, row: int) -> Choice:
        num_own = len(self._examples.problems)
        example = self._examples.table[row] if row < num_own else self._examples.mixture.replayed[row - num_own]
        return Choice(example, row)

    def _even(self, count: int) -> int:
        """Rounded up, so that every learner has the same share."""
        return count + -count % self._num_shares


def best_rates(state: dict[str, Any]) -> dict[int, float] | None:
    """The best solve rate of every row that was asked, from the state of a stage's choices; None without a sampler."""
    if not state:
        return None
    history = state["sampler"]["history"]
    return dict(zip(history["rows"], history["best_rate"], strict=True))
