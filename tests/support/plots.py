"""Plots where their looks are not the point."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure

from pipeline.reports.drawing import STYLE


@contextmanager
def small_plots() -> Iterator[None]:
    """Draws plots small and without layout: a tenth of the time."""
    savefig = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path, dpi: savefig(self, path, dpi=25))
        patch.setitem(STYLE, "figure.constrained_layout.use", False)
        yield
