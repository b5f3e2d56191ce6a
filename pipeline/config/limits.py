"""How long a job waits for something before it ends with an error."""

from pydantic import Field

from pipeline.config.base import StrictModel


class LimitsConfig(StrictModel):
    """Seconds a job waits. Each wait is shown on the console every minute and ends in an error that says what to do."""

    placement_s: float = Field(600.0, gt=0)
    """For room on the cluster: at start, for the learners of a stage, and for actors whose node was lost. Clusters that
    grow on demand need time to add nodes."""
    engine_s: float = Field(3600.0, gt=0)
    """For an answer from any engine: completions, loaded weights, held-out answers. An engine that was replaced starts
    within this time too."""
    reward_s: float = Field(1800.0, gt=0)
    """For an answer from any grader. A reward function of your own that blocks ends the run after this long. Graders
    that ask a solver may wait ``engine_s`` more."""
    collective_s: float = Field(6 * 3600.0, ge=1)
    """For other learners. They wait while the first one evaluates and saves, so this must cover the longest
    evaluation."""
    store_s: float = Field(600.0, gt=0)
    """For the weight store, and for weights to travel from it."""
