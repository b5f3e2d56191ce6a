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
    """A model, named as in ``model.name``, that runs in its own engine. None: the policy itself."""
    num_samples: int = Field(4, ge=1)
    """Number of solutions of each written problem."""
    target_rate: float = Field(0.5, gt=0, lt=1)
    """The reward is highest if this share of solutions agrees with the stated answer."""
    target_rates: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    """Level -> its own target rate, so that problems become as difficult as asked for."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the solver."""
    max_completion_length: int = Field(256, ge=1)
    """Maximum tokens of a solution."""


class NoveltyConfig(StrictModel):
    """Similarity to existing problems: TF-IDF cosines of words, with names and numbers masked."""

    history: int = Field(1000, ge=0)
    """Number of the latest written problems that new ones are compared with, besides the training data."""
    copy_similarity: Share = 0.97
    """From this similarity, a problem counts as a copy."""
    free_similarity: Share = 0.6
    """Up to this similarity, a problem counts as new. Between the two, the reward falls linearly."""


class VariationConfig(StrictModel):
    """Similarity of a variation to its original."""

    bands: dict[WritingKind, BandConfig] = {
        "parameters": BandConfig(low=0.9, high=1.0),
        "context": BandConfig(low=0.25, high=0.7),
        "practical": BandConfig(low=0.05, high=0.7),
    }
    """Allowed similarity for each kind: the cosine of words, with numbers masked for ``parameters`` and unmasked for
    ``context`` and ``practical``."""
    max_length_ratio: float = Field(2.0, gt=1)
    """The longer of a variation and its original, in words, may be at most this many times as long as the shorter."""


class KeepConfig(StrictModel):
    """Rules for keeping written problems as training data. A kept problem must pass the gates of the reward."""

    min_quality: Share = 0.0
    """Minimum quality: the weighted mean of the reward's parts."""
    near_similarity: float = Field(0.8, gt=0, le=1)
    """Two texts are near copies if they share at least this part of their runs of three words, with either numbers or
    names and things masked. Test problems and held-out data are also compared with numbers and names masked at once.
    Copies of these, of other data and of problems kept earlier are rejected."""
    compare_with_data: bool = True
    """Reject copies of the run's training and held-out data, at the end of stages and in ``generate_problems.py``."""


class QuestionsConfig(StrictModel):
    """Rewards and selection of written problems, and the models that solve and write them."""

    max_numbers: dict[str, int] = {}
    """Level -> largest number that its problems may use. A level that is not named has no bound."""
    min_number_frac: Share = 0.0
    """The largest number of a problem must reach this share of the bound; otherwise the problem is too easy for its
    level."""
    must_compute: bool = False
    """True: a problem whose answer cannot be computed independently fails ``checked``. False: it passes."""
    novelty: NoveltyConfig = NoveltyConfig()
    variation: VariationConfig = VariationConfig()
    keep: KeepConfig = KeepConfig()
    solver: SolverConfig | None = None
    """None: no solver, and no reward ``solvable``."""
    teacher: str | None = None
    """A model, named as in ``model.name``, that writes in its own engine where ``stages.write.by`` is teacher."""
    frozen_revisions: dict[str, str] = {}
    """Solver or teacher model -> its branch, tag or commit. A run records here the commits that it uses."""
