import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.curriculum.search_tables import search_statements, search_tables
from tests.support.runs import HOSTILE
from tests.support.search_files import FORGETS_HALF, FORGETS_LITTLE, MIXED, SearchFiles, chain_run, finished_search


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> Path:
    return finished_search(tmp_path_factory.mktemp("search"))


def printed(run_dir: Path, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*search_tables(run_dir))
    return console.export_text()


def lines_of(run_dir: Path) -> list[list[str]]:
    """The cells of every line of the tables."""
    lines = [line for line in printed(run_dir, 160).splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_a_chain_that_forgets_half_shows_it(search):
    lines = lines_of(search)
    # accuracy (40 + 80) / 2; forgetting (50 + 0) / 2; of trained levels 50; level 2 was at 20, and 0 before
    assert lines[0] == ["replay_ratio=0.0", "60.0", "25.0", "50.0", "-50.0", "20.0"]
    assert lines[1][0] == "2 of 2 seeds" and lines[1][1].startswith("[") and lines[2][1] == "range 0.0"
    assert lines[3] == ["replay_ratio=0.5", "80.0", "5.0", "10.0", "-10.0", "20.0"]
    assert lines[6] == ["level_order=mixed (baseline)", "60.0", "0.0", "-", "-", "-"]
    assert len(lines) == 9  # no table of unfinished chains


def test_the_statements_are_those_of_the_findings(search):
    compared, sloped = search_statements(search)
    assert compared.startswith("Best by average accuracy: replay_ratio=0.5")
    assert sloped.startswith("Forgetting falls as the replay ratio rises")


def test_names_of_settings_are_whole_on_a_narrow_terminal(search):
    text = printed(search, 100)
    assert "replay_ratio=0.5" in text and "-30.0" in text and "…" not in text


def test_failed_and_stopped_chains_are_named_with_their_reason(tmp_path):
    search = SearchFiles(tmp_path)
    search.add("a", FORGETS_HALF).add("a", FORGETS_HALF, 1, num_done=1, status="failed", error="worker died: <b>")
    search.add("b", FORGETS_HALF, num_done=1, status="stopped").add("c", FORGETS_HALF, num_done=0)
    lines = lines_of(search.write())
    assert lines[0][:2] == ["a", "60.0"] and lines[1][0] == "1 of 2 seeds" and lines[2][1] == "one seed"
    assert lines[3:5] == [["b", "-", "-", "-", "-", "-"], ["0 of 1 seeds", "", "", "", "", ""]]
    assert lines[7:] == [
        ["a,seed=1", "failed", "1 of 2", "0.500", "worker died: <b>"],
        ["b,seed=0", "stopped", "1 of 2", "0.500", "-"],
        ["c,seed=0", "unfinished", "0 of 2", "-", "-"],
    ]


def test_without_an_evaluation_before_training_metrics_that_need_it_are_left_out(tmp_path):
    search = SearchFiles(tmp_path)
    search.add("r0", FORGETS_HALF, ratio=0.0, before=False).add("r5", FORGETS_LITTLE, ratio=0.5, before=False)
    assert lines_of(search.write())[0] == ["r0", "60.0", "-", "50.0", "-50.0", "-"]


def test_sampled_tokens_are_shown_as_the_mean_over_seeds(tmp_path):
    search = SearchFiles(tmp_path).add_grpo("pools", 50_000).add_grpo("pools", 53_000, 1)
    search.add("pools", MIXED, 2, num_done=0).add("sft", MIXED)
    lines = lines_of(search.write())
    assert [line[0] for line in lines[:3]] == ["pools", "2 of 3 seeds", "51,500 sampled tokens"]
    assert [line[0] for line in lines[3:6]] == ["sft", "1 of 1 seeds", ""]


def test_a_single_chain_has_a_table_too(tmp_path):
    assert lines_of(chain_run(tmp_path))[0][:2] == ["default", "60.0"]


def test_invisible_characters_are_spelled_out(tmp_path):
    search = SearchFiles(tmp_path).add(f"../../{HOSTILE}", FORGETS_HALF, ratio=0.0)
    run_dir = search.add(f"$x_{HOSTILE}", FORGETS_LITTLE, ratio=0.5).write()
    assert "\x00" not in str(lines_of(run_dir))
