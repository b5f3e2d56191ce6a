"""Large libraries are imported without what Gradus never calls."""

import gc
import subprocess
import sys

import pytest

from pipeline.models.imports import quick_imports
from tests.conftest import ROOT


def shown(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.strip()


def test_transformers_and_peft_come_without_sklearn():
    code = """if True:
        import sys
        from pipeline.models.imports import import_transformers
        import_transformers()
        import peft
        print(sorted({"sklearn", "scipy", "pandas"} & set(sys.modules)))
    """
    assert shown(code) == "[]"


def test_what_was_hidden_can_be_imported_afterwards():
    code = """if True:
        from pipeline.models.imports import quick_imports
        with quick_imports():
            try:
                import scipy
            except ImportError:
                print("hidden")
        import scipy
        print(scipy.__name__)
    """
    assert shown(code) == "hidden\nscipy"


def test_what_is_loaded_stays(monkeypatch):
    scipy = object()
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    with quick_imports():
        assert sys.modules["scipy"] is scipy
    assert sys.modules["scipy"] is scipy


def test_garbage_is_collected_again_after_an_error(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        import sklearn  # noqa: F401
    assert gc.isenabled() and "sklearn" not in sys.modules


PROCESSES = {
    "actors.weights, actors.reward, actors.learner.feed, actors.learner.process_group": {"torch", "transformers"},
    "actors.rollout": {"sklearn", "scipy", "pandas"},  # its engine needs torch
    "actors.driver.launch, actors.learner.stages": {"sklearn", "scipy", "matplotlib"},
}


@pytest.mark.parametrize(("modules", "unused"), PROCESSES.items(), ids=PROCESSES)
def test_the_process_of_an_actor_imports_what_it_needs(modules, unused):
    assert shown(f"import sys, {modules}; print(sorted({unused} & set(sys.modules)))") == "[]"
