"""Steps of a stage, steps with an evaluation, and learning rates: pure functions of the settings and the step."""

import math

from pipeline.config import GRPOConfig, OptimizerConfig, SFTConfig


def num_steps(settings: SFTConfig | GRPOConfig, batch_size: int, num_examples: int) -> int:
    """Steps of a stage that trains on ``num_examples`` with ``batch_size`` per step, over all workers."""
    if isinstance(settings, GRPOConfig):
        return settings.num_iterations * settings.num_steps
    steps = math.ceil(round(settings.num_train_epochs * num_examples / batch_size, 9))
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def eval_steps(times: int, total_steps: int, every: int | None = None) -> set[int]:
    """The steps, counted from 1, that end with an evaluation: ``times`` steps, evenly spread, the last one included;
    or, if ``every`` is given, every ``every`` steps and the last one."""
    if every:
        return {*range(every, total_steps + 1, every), total_steps}
    return {math.ceil(total_steps * (index + 1) / times) for index in range(times)}


def learning_rate(settings: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of ``step``, counted from 0: linear warm-up, then constant, linear to 0, or half a cosine to 0."""
    warmup = round(settings.warmup_ratio * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(total_steps - warmup, 1)
    scale = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return settings.learning_rate * scale[settings.lr_schedule]
