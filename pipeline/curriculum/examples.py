"""What a stage trains on, step by step: problems with their tokens, new ones and replayed ones, none too long."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pipeline.config import SFTConfig
from pipeline.curriculum.replay import Mixture, ReplayItem, mix
from pipeline.curriculum.stages import StageSpec, total_steps
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import TokenTable
from pipeline.errors import DataError
from pipeline.training.batching import TokenSequence
from pipeline.types import Problem


class Examples(Sequence[tuple[Problem, Any]]):
    """Problems, each with what is trained on: prompt and worked solution, or the prompt alone. Read when asked for."""

    def __init__(self, problems: ProblemTable, tokens: TokenTable, max_length: int | None) -> None:
        """
        Args:
            max_length: of prompt and worked solution, which ends there; None takes the prompt alone.
        """
        self.problems = problems
        self._tokens, self._max_length = tokens, max_length

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: Any) -> Any:
        prompt, completion = self._tokens[int(self.problems.rows[index])]
        if self._max_length is None:
            return self.problems[index], prompt
        return self.problems[index], TokenSequence(prompt, completion[: self._max_length - len(prompt)])


def shortened(example: TokenSequence, settings: SFTConfig) -> TokenSequence | None:
    """The example as training would take it: None where it is too long."""
    room = settings.max_length - len(example.prompt)
    if len(example.completion) > room and (settings.too_long == "drop" or room < 1):
        return None
    return TokenSequence(example.prompt, example.completion[:room])


@dataclass(frozen=True)
class StageExamples:
    """Laid down before the first step, by lengths alone: no tokens are read for it."""

    mixture: Mixture[tuple[Problem, Any]]
    batch_size: int
    num_steps: int
    counts: dict[str, int]
    """How much of the stage's own problems it takes, and how much is too long."""

    def batch(self, step: int) -> list[tuple[tuple[Problem, Any], bool]]:
        """The examples of a step from 0, each with whether it is a replayed one."""
        return self.mixture.batch(self.batch_size, step)

    def trained_until(self, step: int) -> list[ReplayItem]:
        """The stage's own problems that its first steps trained on."""
        rows = self.mixture.new_rows_until(step * self.batch_size)
        heads = cast(Examples, self.mixture.new).problems.take(sorted(rows)).heads()
        return [ReplayItem(head.id, head.level) for head in heads]


def stage_examples(
    stage: StageSpec,
    problems: ProblemTable,
    replayed: ProblemTable,
    tokens: TokenTable,
    *,
    max_prompt_length: int,
    seed: int,
) -> StageExamples:
    """GRPO takes prompts of at most ``max_prompt_length`` tokens. SFT takes worked solutions that fit into its
    ``max_length`` with their prompts; with ``too_long: truncate`` they are cut off there, and left out only if not a
    single token of the solution would remain.

    Raises:
        DataError: every problem of the stage is too long.
    """
    prompt_lengths, completion_lengths = tokens.lengths()
    max_length = None
    if isinstance(stage.settings, SFTConfig):
        limit = max_length = stage.settings.max_length
        lengths = prompt_lengths + completion_lengths
        fits = prompt_lengths < limit if stage.settings.too_long == "truncate" else lengths <= limit
        fits &= completion_lengths > 0
        fix = "raise sft.max_length, or set sft.too_long=truncate"
    else:
        limit, lengths = max_prompt_length, prompt_lengths
        fits = lengths <= limit
        fix = "raise rollout.max_prompt_length"
    new, again = (
        Examples(part.take(np.flatnonzero(fits[part.rows])), tokens, max_length) for part in (problems, replayed)
    )
    if not new:
        raise DataError(f"stage {stage.name} must have problems of at most {limit} tokens, got none: {fix}.")
    num_steps = total_steps(stage, Counter(head.level for head in new.problems.heads()))
    num_examples = num_steps * stage.batch_size
    mixture = mix(new, again, stage.replay.ratio if stage.replay else 0.0, num_examples, seed, stage.name)
    counts = _counts(lengths[problems.rows], fits[problems.rows], limit)
    return StageExamples(mixture, stage.batch_size, num_steps, counts)


def _counts(lengths: np.ndarray, fits: np.ndarray, limit: int) -> dict[str, int]:
    cut = fits & (lengths > limit)
    return {
        "max_length": limit,
        "num_problems": len(fits),
        "num_dropped": int((~fits).sum()),
        "num_truncated": int(cut.sum()),
        "num_tokens": int(lengths[fits].clip(max=limit).sum()),
        "num_tokens_left_out": int(lengths[~fits].sum() + (lengths[cut] - limit).sum()),
    }
