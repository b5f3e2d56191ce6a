"""Errors that a user can act on. A job prints only the message and exits with code 2.

    GradusError
    ├── ConfigError        a setting is unknown, of the wrong type or out of range
    ├── DataError          a data set is missing, unreadable or lacks a field
    ├── ModelError         a model is missing, unreadable or does not fit the configuration
    ├── RewardError        a reward function cannot be found or returns an invalid value
    ├── TrainingError      updates are not finite, so that training cannot go on
    ├── CheckpointError    a run directory or checkpoint is missing, corrupt or belongs to another run
    └── ClusterError       the cluster lacks resources that the configuration asks for

Bugs are not GradusErrors: they keep their traceback.
"""


class GradusError(Exception):
    """``<setting or object> must <rule>, got <value>: <why>. <what to do>``"""


class ConfigError(GradusError):
    pass


class DataError(GradusError):
    pass


class ModelError(GradusError):
    pass


class RewardError(GradusError):
    pass


class TrainingError(GradusError):
    pass


class CheckpointError(GradusError):
    pass


class ClusterError(GradusError):
    pass


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for messages that must stay one line long."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
