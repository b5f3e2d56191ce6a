"""Before a run starts: fixes the commits of what comes from a hub, and compares a resumed run with what it was."""

from collections.abc import Sequence

from actors.driver.actor_plan import frozen_models
from actors.driver.plan import RunPlan, decide_dtype
from actors.solver import frozen_model
from pipeline.config import Config, QuestionsConfig
from pipeline.config.resuming import refusals
from pipeline.curriculum.stages import StageSpec
from pipeline.data.sources import pinned_data
from pipeline.errors import CheckpointError
from pipeline.models.hub import own_revision, pinned_model, resolve_model
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.inputs import INPUTS_FILE, Inputs


def pinned(config: Config, run: RunDirectory | None = None) -> Config:
    """The configuration with the hub's commits as revisions, which actors on any node, and resumed runs, then use.

    Args:
        run: the one that is resumed. Its commits are not used for a model or data set that it did not have.

    Raises:
        GradusError: the model or the data set does not exist.
    """
    before = run.load_config() if run else config
    model, data = own_revision(config.model, before.model), own_revision(config.data, before.data)
    pins = {"model": pinned_model(model), "data": pinned_data(data), "questions": _pinned_questions(config)}
    return config.model_copy(update=pins)


def _pinned_questions(config: Config) -> QuestionsConfig:
    """With the commits of frozen models."""
    found = {name: pinned_model(frozen_model(config, name)).revision for name in frozen_models(config)}
    revisions = {name: revision for name, revision in found.items() if revision is not None}
    return config.questions.model_copy(update={"frozen_revisions": revisions})


def inputs_of(plan: RunPlan) -> Inputs:
    """Digests of the models, which are downloaded if needed, and of the data of all chains."""
    config = plan.config
    frozen = {name: resolve_model(frozen_model(config, name)) for name in frozen_models(config)}
    return Inputs.of(config.model, resolve_model(config.model), [chain.spec.config for chain in plan.chains], frozen)


def check_inputs(run: RunDirectory, inputs: Inputs) -> list[str]:
    """One line for each file and data set that is no longer what the run started with. Warns if that is not known."""
    recorded = Inputs.read(run.path)
    if recorded is None:
        print(
            f"warning: {run.path} has no {INPUTS_FILE}, because an earlier version started it: its model's files and "
            "its data cannot be compared with those it started with.",
            flush=True,
        )
        return []
    return recorded.differences(inputs)


def check_resumed(run: RunDirectory, config: Config, inputs: Inputs, left: Sequence[StageSpec]) -> None:
    """Compare a resumed run of one chain with how it was started. Changes nothing.

    Args:
        config: the one that it would go on with.
        left: its stages that are not done.

    Raises:
        CheckpointError: lists every setting, file and data set that must not differ.
    """
    has_inputs = (run.path / INPUTS_FILE).exists()
    before = decide_dtype(run.load_config())
    lines = refusals(
        before if has_inputs else pinned(before),
        config,
        [stage.settings for stage in left],
        fixed_steps=[stage.settings for stage in left[:1] if _has_mixed(stage, run.checkpoints.latest_progress())],
        compares_content=has_inputs,
    )
    refuse(run, [*lines, *check_inputs(run, inputs)])


def refuse(run: RunDirectory, lines: Sequence[str]) -> None:
    """Raises CheckpointError if there are lines."""
    if lines:
        raise CheckpointError(
            f"run {run.path} must be resumed as it was started, but differs:\n  " + "\n  ".join(lines) + "\n"
            "Nothing was changed. Leave these as they were (docs/run_directory.md says what may change), or start a "
            "new run, with model.name=RUN/final_model to go on from its result."
        )


def _has_mixed(stage: StageSpec, progress: Progress | None) -> bool:
    """The stage has begun to mix in replayed problems, at places that depend on its number of steps."""
    return stage.replay is not None and progress is not None and progress.stage == stage.name
