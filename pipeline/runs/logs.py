"""Every process of a run also logs to ``logs/<name>.log`` in the run directory."""

import logging
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
    for logger in (root, logging.getLogger("vllm"), logging.getLogger("ray")):
        logger.addHandler(handler)
