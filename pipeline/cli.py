"""The command line of training, search and evaluation jobs. Imports little, so that ``--help`` answers at once."""

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, GradusError, first_line

if TYPE_CHECKING:
    from pipeline.config import Config, EvaluationConfig
    from pipeline.config.generation import GenerationConfig
    from pipeline.runs.directory import RunDirectory


@dataclass(frozen=True)
class JobArguments:
    """The parsed command line of a training, search or evaluation job."""

    config: str
    overrides: list[str]
    resume: str | None
    dry_run: bool


def positive(text: str) -> int:
    """The type of an option that is a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return int(text)


def parse_job_arguments(description: str, default_config: str, argv: Sequence[str] | None = None) -> JobArguments:
    """``--config FILE key=value ... [--resume RUN_DIR] [--dry-run]``"""
    sys.path.append(os.getcwd())  # finds rewards named module:function beside the job, as Ray's workers do
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", default=default_config, metavar="FILE", help="a recipe (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as grpo.learning_rate=5e-6")
    parser.add_argument("--resume", metavar="RUN_DIR", help="continue this run; latest: the newest one")
    parser.add_argument("--dry-run", action="store_true", help="check everything, show what would start, start nothing")
    for argument in sys.argv[1:] if argv is None else argv:
        if argument.encode(errors="replace").decode() != argument:
            parser.error(f"arguments must be UTF-8, got {argument!a}")
    return JobArguments(**vars(parser.parse_intermixed_args(argv)))


def read_arguments(arguments: JobArguments) -> "tuple[Config, RunDirectory | None]":
    """The checked configuration, and None; with ``--resume``, the run's own with overrides applied, and the run.

    Raises:
        ConfigError: a setting is wrong.
        CheckpointError: the run cannot be resumed.
    """
    from pipeline.config import Config, load_config, load_saved_config
    from pipeline.runs.directory import RunDirectory

    if arguments.resume is None:
        config = load_config(arguments.config, arguments.overrides)
        check_output_root(config.output.root)
        return config, None
    root = output_root(arguments, Config) if arguments.resume == "latest" else ""
    run_directory = RunDirectory.open(arguments.resume, root)
    run_directory.checkpoints.verify_latest()  # find a corrupt checkpoint before anything starts
    saved = run_directory.path / "experiment_config.json"
    return load_saved_config(saved, arguments.overrides, Config), run_directory


def output_root(
    arguments: JobArguments, model: "type[Config] | type[EvaluationConfig] | type[GenerationConfig]"
) -> str:
    """Where ``--resume latest`` looks for jobs. Other overrides may be valid only on top of the resumed job's own
    settings, so they are left out."""
    from pipeline.config import load_config

    only_root = [item for item in arguments.overrides if item.startswith("output.root=")]
    return load_config(arguments.config, only_root, model).output.root


def check_output_root(root: str) -> None:
    """Raises ConfigError for a place that cannot be written, and for a relative path in a submitted job."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not Path(root).is_absolute():
        raise ConfigError(
            f"output.root must be an absolute path in a submitted job, got {root}: the job runs in a copy of the "
            "package that Ray deletes. Add output.root=/absolute/path."
        )
    try:
        path = Path(root).expanduser().resolve()
        place = next(place for place in (path, *path.parents) if place.exists())
    except (OSError, RuntimeError, ValueError) as error:  # too long, of an unknown user, with a NUL
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigError(f"output.root must be writable, got {root!r:.200}: {reason}.") from None
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        reason = "this user may not write there" if place.is_dir() else "it is a file"
        raise ConfigError(f"output.root must be writable, got {root}: {place}: {reason}.")


RESUMABLE = "interrupted. Continue with --resume latest."


@contextmanager
def user_errors(interrupted: str = "interrupted.") -> Iterator[None]:
    """A user error ends the job with one message and exit code 2; a bug keeps its traceback.

    Args:
        interrupted: the message after Ctrl-C.
    """
    try:
        yield
    except GradusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"error: the path {str(error.filename)[:60]}... cannot be used: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
