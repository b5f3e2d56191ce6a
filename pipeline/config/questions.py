"""Training of a model that writes problems. docs/questions.md."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.base import StrictModel
from pipeline.types import WritingKind

Share = Annotated[float, Field(ge=0, le=1)]


class BandConfig(StrictModel):
    """An interval of similarities."""

    low: Share = 0.0
    high: Share = 1.0

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "BandConfig":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


class SolverConfig(StrictModel):
    """The solver that tries written problems."""

    model: str | None = None
    """A model in an engine of its own, named as ``model.name`` is. None: the policy itself."""
    num_samples: int = Field(4, ge=1)
    """Solutions of each written problem."""
    target_rate: float = Field(0.5, gt=0, lt=1)
    """Share of solutions that agree with the stated answer at which the reward is highest."""
    target_rates: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    """Level -> its own target rate, so that problems are as difficult as asked for."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the solver."""
    max_completion_length: int = Field(256, ge=1)
    """Maximum tokens of a solution."""


class NoveltyConfig(StrictModel):
    """Similarity to what exists: TF-IDF cosines of words, names and numbers masked."""

    history: int = Field(1000, ge=0)
    """Written problems that new ones are compared with, besides the training data."""
    copy_similarity: Share = 0.97
    """From this similarity on a problem counts as a copy."""
    free_similarity: Share = 0.6
    """Up to this similarity a problem counts as new. Between the two the reward falls linearly."""


class VariationConfig(StrictModel):
    """Similarity of a variation to its original."""

    bands: dict[WritingKind, BandConfig] = {
        "parameters": BandConfig(low=0.9, high=1.0),
        "context": BandConfig(low=0.25, high=0.7),
        "practical": BandConfig(low=0.05, high=0.7),
    }
    """Allowed similarity for each kind. ``parameters``: of texts whose numbers are masked. ``context`` and
    ``practical``: plain cosine of words."""
    max_length_ratio: float = Field(2.0, gt=1)
    """A variation may be at most this many times as long as its original, and no shorter than one over it, in words."""


class KeepConfig(StrictModel):
    """The written problems that are kept as training data. All must pass the gate of the reward."""

    min_quality: Share = 0.0
    """Lowest quality: the weighted mean of the reward's parts."""
    near_similarity: float = Field(0.8, gt=0, le=1)
    """Share of their runs of three words that near copies have in common, once numbers, or names and things, are
    masked; for test problems and held-out data, also once numbers and names are masked at once. Copies of these, of
    other data and of problems that were kept are left out."""
    compare_with_data: bool = True
    """Reject copies of the run's training and held-out data at the end of a stage."""


class QuestionsConfig(StrictModel):
    """Tasks to write problems, and the rewards of what is written."""

    max_numbers: dict[str, int] = {}
    """Level -> largest number that its problems are asked to use. A level that is not named has no bound."""
    must_compute: bool = False
    """A problem whose answer cannot be computed independently fails ``checked``. False: it passes."""
    novelty: NoveltyConfig = NoveltyConfig()
    variation: VariationConfig = VariationConfig()
    keep: KeepConfig = KeepConfig()
    solver: SolverConfig | None = None
    """None: no solver, and no reward ``solvable``."""
    teacher: str | None = None
    """A model in an engine of its own, named as ``model.name`` is, that writes where ``stages.write.by`` is teacher."""
    frozen_revisions: dict[str, str] = {}
    """Model -> its branch, tag or commit, of a solver or a teacher. A run writes the commits that it uses here."""
