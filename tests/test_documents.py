"""The documents name files that exist, and the layout keeps the rules that docs/architecture.md states."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ROOMS = [  # from lower to upper: a room imports from its own row and from those above it in this list
    {"errors", "fields", "files", "seeds", "templates", "types", "verifier"},
    {"config"},
    {"data", "models"},
    {"training", "rewards"},
    {"runs"},
    {"reports"},
    {"curriculum"},
    {"evaluation", "audit", "grading"},
    {"questions"},
    {"run_page"},
    {"report", "cli"},
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if heading and file.suffix == ".md":
            assert heading in headings(file), target


def headings(document: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_ours_that_are_named_exist(document):
    if document.name == "CHANGELOG.md":  # it describes the past
        return
    for path in re.findall(r"`((?:actors|configs|docs|jobs|pipeline|scripts|tests)/[\w./-]+)`", document.read_text()):
        assert (ROOT / path).exists(), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_pipeline_imports_neither_ray_nor_vllm_nor_anything_above_it():
    for path in (ROOT / "pipeline").rglob("*.py"):
        above = {"ray", "vllm", "actors", "jobs"} & {module.partition(".")[0] for module in imports(path)}
        assert not above, path


def test_no_room_of_pipeline_imports_from_one_above_it():
    rank = {room: row for row, rooms in enumerate(ROOMS) for room in rooms}
    for path in (ROOT / "pipeline").rglob("*.py"):
        room = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        for module in imports(path):
            if module.startswith("pipeline.") and room != "__init__":
                assert rank[module.split(".")[1]] <= rank[room], f"{path} imports {module}"


def test_learners_know_nothing_of_the_driver_and_actor_classes_of_neither():
    for path in (ROOT / "actors").rglob("*.py"):
        side = path.relative_to(ROOT / "actors").parts[0]
        forbidden = {"driver": ("jobs",), "learner": ("jobs", "actors.driver")}
        above = forbidden.get(side, ("jobs", "actors.driver", "actors.learner"))
        assert not [module for module in imports(path) if module.startswith(above)], path


def definitions() -> Iterator[tuple[str, int, bool]]:
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "actors").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                yield f"{path.relative_to(ROOT)}:{node.name}", length, isinstance(node, ast.ClassDef)


def test_functions_and_classes_stay_small():
    """60 and 200 lines: beyond that a function does two things, and a class has two subjects."""
    assert not [name for name, length, is_class in definitions() if length > (200 if is_class else 60)]
