"""A learner's view of its stage's sampler: the problems to ask, and what became of them."""

from collections.abc import Sequence

from actors.learner.session import LearnerSession
from pipeline.curriculum.choices import Choice, StepChoices
from pipeline.curriculum.samplers.base import Outcome, StageLength, StageProblems
from pipeline.curriculum.samplers.stage import StageSampler
from pipeline.runs.notices import notify
from pipeline.seeds import completion_seeds
from pipeline.types import PromptRequest, RolloutGroup


def stage_choices(session: LearnerSession) -> StepChoices:
    """The choices of a stage, from where its progress stands."""
    sampler = _sampler(session) if session.settings.sampler else None
    return StepChoices(session.examples, sampler, session.ranks.size, session.progress.choices)


def _sampler(session: LearnerSession) -> StageSampler:
    settings, curriculum = session.settings, session.config.curriculum
    levels = curriculum.levels if curriculum else None
    problems = StageProblems(list(session.examples.problems.heads()), session.examples.replayed_rates, levels)
    length = StageLength(session.schedule.num_steps, settings.max_sampled_tokens, session.progress.sampled_tokens)
    return StageSampler(settings.sampler, problems, length, session.config.seed, session.stage.name)


def requests(session: LearnerSession, choices: Sequence[Choice], step: int, first: int = 0) -> list[PromptRequest]:
    """Requests to the engines.

    Args:
        first: place of the first problem among all that the step asks.
    """
    seed, size = session.config.seed, session.settings.num_generations
    examples = [each.example for each in choices]
    return [  # the place counts too: a small data set may repeat a problem within a batch
        PromptRequest(each.tokens.prompt, completion_seeds(seed, step, f"{place}:{each.problem.id}", size))
        for place, each in enumerate(examples, first)
    ]


def outcome(session: LearnerSession, group: RolloutGroup, choice: Choice) -> Outcome:
    return Outcome.of(group, choice.row, session.settings)


def take_in(
    session: LearnerSession, choices: StepChoices, stage_step: int, outcomes: Sequence[Outcome], is_empty: bool = False
) -> dict[str, float]:
    """Tell the sampler what became of a step's groups, and record in the progress where this leaves the stage. Every
    learner does so, with the same outcomes.

    Args:
        outcomes: of all learners, dropped groups included.
        is_empty: True if a dynamic sampler found no group that teaches anything.

    Returns:
        metrics of the step.
    """
    progress, num_tokens = session.progress, sum(each.num_tokens for each in outcomes)
    progress.choices = choices.done(stage_step, outcomes, is_empty)
    progress.sampled_tokens += num_tokens
    progress.ended_early = _reason_to_end(session, choices)
    if progress.ended_early and session.ranks.is_first:
        notify(f"stage {session.stage.name} ends with step {progress.step + 1}: {progress.ended_early}")
    return {"sampled_tokens": num_tokens, "sampled_tokens_total": progress.sampled_tokens}


def _reason_to_end(session: LearnerSession, choices: StepChoices) -> str:
    sampled, bound = session.progress.sampled_tokens, session.settings.max_sampled_tokens
    if bound is not None and sampled >= bound:
        return f"{sampled} tokens are sampled (grpo.max_sampled_tokens={bound})"
    if choices.dynamic and choices.num_empty_steps >= choices.dynamic.max_empty_steps:
        return (
            f"in {choices.num_empty_steps} steps in a row all rewards of every group were equal, so nothing can be "
            "learned (grpo.sampler.dynamic.max_empty_steps). Choose easier or harder problems"
        )
    return ""
