"""Imports large libraries in less time and memory."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OPTIONAL = ("sklearn", "scipy")
"""Packages that transformers and vLLM import if they are there, for assisted generation, object detection and audio."""


def import_transformers() -> None:
    """Import the classes that load models and tokenizers, for a later ``from transformers import``."""
    with quick_imports():
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within the block, modules are imported without garbage collection and as if ``OPTIONAL`` were not installed."""
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    collects = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an import fails
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)  # another thread may have done it
        if collects:
            gc.enable()
