"""The examples of a stage, step by step: its own problems and replayed ones with their tokens, none too long."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.config import SFTConfig
from pipeline.curriculum.mixture import Mixture, mix
from pipeline.curriculum.replay import ReplayItem
from pipeline.curriculum.stages import StageSpec, total_steps
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import ProblemTokens, TokenTable
from pipeline.errors import DataError
from pipeline.training.batching import TokenSequence
from pipeline.types import Problem

PROBE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Example:
    """One problem of a batch."""

    problem: Problem
    tokens: TokenSequence
    """SFT: prompt and worked solution. GRPO: the prompt, with an empty completion."""
    is_replayed: bool = False
    """It comes from the replay buffer."""


class ExampleTable:
    """The examples of a table of problems, read on access."""

    def __init__(
        self, problems: ProblemTable, tokens: TokenTable, max_length: int | None, *, is_replayed: bool = False
    ) -> None:
        """
        Args:
            max_length: tokens of prompt and worked solution together; longer solutions are cut off. None: prompts only.
        """
        self.problems = problems
        self._tokens, self._max_length, self._is_replayed = tokens, max_length, is_replayed

    def __len__(self) -> int:
        return len(self.problems)

    def prompt(self, index: int) -> tuple[int, ...]:
        """The tokens of a prompt."""
        return self._tokens[int(self.problems.rows[index])][0]

    def prompt_lengths(self) -> list[int]:
        """Tokens of every prompt."""
        lengths: list[int] = self._tokens.lengths()[0][self.problems.rows].tolist()
        return lengths

    def __getitem__(self, index: int) -> Example:
        tokens = self._tokens[int(self.problems.rows[index])]
        if self._max_length is None:
            sequence = TokenSequence(tokens.prompt, ())
        else:
            sequence = sft_sequence(tokens).cut(self._max_length)
        return Example(self.problems[index], sequence, self._is_replayed)


def sft_sequence(tokens: ProblemTokens) -> TokenSequence:
    """The tokens of a problem as SFT takes them. A conversation's completion begins at the assistant's first turn."""
    prompt, completion, learned = tokens
    if learned is None:
        return TokenSequence(prompt, completion)
    first = learned.index(True)
    all_learned = (*learned[first:], *[True] * len(completion))
    return TokenSequence(prompt[:first], (*prompt[first:], *completion), all_learned)


def shortened(example: TokenSequence, settings: SFTConfig) -> TokenSequence | None:
    """The example as training would take it, or None if it is too long."""
    room = settings.max_length - len(example.prompt)
    if len(example.completion) > room and (settings.too_long == "drop" or room < 1):
        return None
    return example.cut(settings.max_length)


@dataclass(frozen=True)
class StageExamples:
    """The order in which a stage trains. Fixed before the first step, from lengths alone."""

    problems: ProblemTable
    """The stage's own problems that are not too long."""
    table: ExampleTable
    """Their examples."""
    mixture: Mixture[Example]
    """Examples of these problems and replayed ones."""
    batch_size: int
    num_steps: int
    counts: dict[str, int]
    """Numbers of the stage's own problems and tokens that are used, and of those that are too long."""
    replayed_rates: tuple[float | None, ...] = ()
    """Best solve rate of each replayed problem in its own stage; None: not measured."""

    def batch(self, step: int) -> list[Example]:
        """The ``batch_size`` examples of a step, from 0."""
        return self.mixture.batch(self.batch_size, step)

    def replayed_rows(self, step: int) -> list[int | None]:
        """The rows of the replayed examples of a step, in their places; None at the places of new ones."""
        return [
            self.mixture.replayed_row(place) for place in range(step * self.batch_size, (step + 1) * self.batch_size)
        ]

    def probe_tokens(self, max_length: int) -> tuple[int, ...]:
        """The first tokens of the stage's first example, two at least: a text to compare learner and engines with."""
        text = self.mixture.batch(1, 0)[0].tokens
        tokens = (*text.prompt, *text.completion)
        return (tokens * 2)[: max(2, min(PROBE_TOKENS, max_length))]

    def trained_until(self, step: int, best_rates: Mapping[int, float] | None = None) -> list[ReplayItem]:
        """The stage's own problems that its first ``step`` steps trained on, in data set order.

        Args:
            best_rates: of the rows that its sampler chose; None without a sampler.
        """
        rates: Mapping[int, float] = best_rates or {}
        rows = self.mixture.new_rows_until(step * self.batch_size) if best_rates is None else rates
        own = sorted(row for row in rows if row < len(self.problems))
        heads = self.problems.take(own).heads()
        return [ReplayItem(head.id, head.level, rates.get(row)) for row, head in zip(own, heads, strict=True)]


def stage_examples(
    stage: StageSpec,
    problems: ProblemTable,
    replayed: ProblemTable,
    tokens: TokenTable,
    *,
    max_prompt_length: int,
    seed: int,
    best_rates: Mapping[str, float | None] | None = None,
) -> StageExamples:
    """Leave out problems that are too long and mix in replayed ones.

    GRPO takes prompts of at most ``max_prompt_length`` tokens. SFT takes worked solutions that fit into its
    ``max_length`` with their prompts. With ``too_long: truncate`` longer solutions are cut off, and left out only if
    not a single token would remain.

    Args:
        best_rates: of replayed problems in their own stages, by id, as far as they were measured.

    Raises:
        DataError: every problem of the stage is too long.
    """
    prompt_lengths, completion_lengths = tokens.lengths()
    max_length = None
    if isinstance(stage.settings, SFTConfig):
        limit = max_length = stage.settings.max_length
        lengths = prompt_lengths + completion_lengths
        fits = tokens.context_lengths() < limit if stage.settings.too_long == "truncate" else lengths <= limit
        fits &= completion_lengths > 0
        kind = stage.settings.KIND
        fix = f"raise {kind}.max_length, or set {kind}.too_long=truncate"
    else:
        limit, lengths = max_prompt_length, prompt_lengths
        fits = lengths <= limit
        fix = "raise rollout.max_prompt_length"
    fitting, buffered = (part.take(np.flatnonzero(fits[part.rows])) for part in (problems, replayed))
    if not fitting:
        raise DataError(f"stage {stage.name} must have problems of at most {limit} tokens, got none: {fix}.")
    levels = [head.level for head in fitting.heads()]
    num_steps = total_steps(stage, Counter(levels))
    table = ExampleTable(fitting, tokens, max_length)
    mixture = mix(
        table,
        ExampleTable(buffered, tokens, max_length, is_replayed=True),
        stage.replay.ratio if stage.replay else 0.0,
        num_steps * stage.batch_size,
        seed,
        stage.name,
        levels=levels if stage.balance_levels else None,
    )
    counts = _counts(lengths[problems.rows], fits[problems.rows], limit)
    rates = tuple((best_rates or {}).get(head.id) for head in buffered.heads())
    return StageExamples(fitting, table, mixture, stage.batch_size, num_steps, counts, rates)


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
