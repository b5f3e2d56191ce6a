"""A thread that follows what other processes write, for as long as a block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

END_S = 5.0


@contextmanager
def in_background(follow: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run ``follow(*arguments, stop)`` beside the block. ``stop`` is an event that is set when the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(*arguments, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_S)
