"""Every process of a run also logs to ``logs/<name>.log`` in the run directory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_file(run_path: Path, name: str) -> None:
    """Add the file to this process's logging, unless it was added before. vllm and ray have loggers of their own."""
    path = str((run_path / "logs" / f"{name}.log").resolve())
    root = logging.getLogger()
    if any(getattr(handler, "baseFilename", None) == path for handler in root.handlers):
        return
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(FORMAT))
    root.setLevel(logging.INFO)
    for logger in _loggers():
        logger.addHandler(handler)


@contextmanager
def log_files_closed() -> Iterator[None]:
    """After the block, files that were added in it are closed, and levels are what they were before."""
    before = [(logger, logger.level, list(logger.handlers)) for logger in _loggers()]
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            for handler in set(logger.handlers) - set(handlers):
                logger.removeHandler(handler)
                handler.close()


def _loggers() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in (None, "vllm", "ray")]
