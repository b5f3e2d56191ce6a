from pathlib import Path

import pytest
from matplotlib.image import imread

from pipeline.curriculum.chain_results import require_chains
from pipeline.curriculum.search_report import chain_section, write_search_report
from pipeline.curriculum.search_summary import summarize_chain
from pipeline.errors import CheckpointError
from pipeline.report import write_report
from tests.support.pages import Page, fingerprint
from tests.support.runs import HOSTILE, make_run
from tests.support.search_files import (
    FORGETS_HALF,
    FORGETS_LITTLE,
    SearchFiles,
    chain_run,
    finished_search,
    summary_of,
)


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> Path:
    run_dir = finished_search(tmp_path_factory.mktemp("search"))
    write_report(run_dir)
    return run_dir


@pytest.fixture
def without_run_plots(monkeypatch):
    """A run's page without the plots of its metrics, which take seconds and have tests of their own."""

    def draw_nothing(run_dir: Path, plots_dir: Path) -> list[Path]:
        plots_dir.mkdir()
        return []

    monkeypatch.setattr("pipeline.report.draw_all", draw_nothing)


# A search ----------------------------------------------------------------------------------------


def test_the_summary_of_a_search(search):
    summary = summary_of(search)
    assert summary["kind"] == "search" and summary["num_chains"] == {"finished": 6}
    # 2 seeds x (2 + 2 + 1) stages, two of them in two chains; each takes 60 s, the second ones start at 60
    stages = {"num_in_chains": 10, "num_different": 8, "num_shared": 2, "num_trained": 8}
    stages["num_ledger_violations"] = 0
    assert summary["stages"] == {**stages, "total_s": 480.0, "wall_time_s": 120.0}
    first = summary["tagged"]["settings"][0]
    assert first["setting"] == "replay_ratio=0.0" and first["forgetting"]["mean"] == pytest.approx(0.25)
    assert first["average_accuracy"]["by_seed"] == pytest.approx({"0": 0.6, "1": 0.6})
    assert summary["last_number"]["settings"][0]["average_accuracy"]["mean"] == 1.0
    assert summary["tagged"]["comparison"]["larger_than_noise"] is True
    assert summary["tagged"]["trend"]["slope"] == pytest.approx(-0.4)
    chain = summary["chains"][0]
    assert chain["tagged"]["matrix"] == [{"1": 0.1, "2": 0.0}, {"1": 0.9, "2": 0.2}, {"1": 0.4, "2": 0.8}]
    assert chain["tagged"]["forgetting_by_level"] == pytest.approx({"1": 0.5, "2": 0.0})


def test_the_pictures_and_the_page(search):
    names = {"replay_ratio", "matrices"} | {f"matrix_{chain['name']}" for chain in summary_of(search)["chains"]}
    assert {path.stem for path in (search / "plots").iterdir()} == names
    assert all(imread(path).std() > 0.01 for path in (search / "plots").iterdir())
    page = Page(search / "report.html")
    images = [attrs["src"][:22] for tag, attrs in page.tags if tag == "img"]
    assert images == ["data:image/png;base64,"] * len(names)
    assert "The 6 chains have 10 stages, 8 of them different: 2 are shared. 8 are done" in page.text
    assert "Chains without a result" not in page.text
    assert "Forgetting of the baseline is not drawn" in page.text  # one stage against two


def test_output_dir_leaves_the_search_untouched(tmp_path):
    run_dir = SearchFiles(tmp_path / "run").add("a", FORGETS_HALF, num_done=0).write()
    before = fingerprint(run_dir)
    assert write_report(run_dir, tmp_path / "out") == tmp_path / "out" / "report.html"
    assert fingerprint(run_dir) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plots", "summary.json", "report.html"}


def test_an_unfinished_search_is_reported_so_far(tmp_path):
    search = SearchFiles(tmp_path)
    search.add("a", FORGETS_HALF).add("a", FORGETS_HALF, 1, num_done=1, status="failed", error="worker died: <b>")
    search.add("b", FORGETS_HALF, num_done=1, status="stopped").add("c", FORGETS_HALF, num_done=0)
    run_dir = search.write()
    write_report(run_dir)
    assert summary_of(run_dir)["num_chains"] == {"finished": 1, "failed": 1, "stopped": 1, "unfinished": 1}
    assert (run_dir / "plots" / "matrix_b,seed=0.png").exists()  # what is known of a stopped chain is shown
    assert not (run_dir / "plots" / "matrix_c,seed=0.png").exists()
    page = Page(run_dir / "report.html")
    assert "worker died: <b>" in page.text and ("b", {}) not in page.tags[page.tags.index(("small", {})) :]


def test_a_search_that_has_nothing_yet_is_reported(tmp_path):
    run_dir = SearchFiles(tmp_path / "run").add("a", FORGETS_HALF, num_done=0).write()
    assert "unfinished" in Page(write_report(run_dir)).text
    assert summary_of(run_dir)["tagged"]["settings"] == []


def test_an_accuracy_that_was_not_measured_is_null_in_the_summary(tmp_path):
    write_report(SearchFiles(tmp_path).add("r0", FORGETS_HALF, ratio=0.0, before=False).write())
    assert summary_of(tmp_path)["chains"][0]["tagged"]["matrix"][0] == {"1": None, "2": None}


def test_hostile_names_are_shown_and_do_nothing(tmp_path):
    search = SearchFiles(tmp_path, levels=(f"{HOSTILE}1", f"{HOSTILE}2"))
    search.add(f"../../{HOSTILE}", FORGETS_HALF, ratio=0.0).add(f"$x_{HOSTILE}", FORGETS_LITTLE, ratio=0.5)
    search.add("$\\frac", FORGETS_HALF, num_done=1, status="failed", error=HOSTILE)
    run_dir = search.write()
    page = Page(write_report(run_dir))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert all(attrs["src"].startswith("data:") for tag, attrs in page.tags if tag == "img")
    assert all(path.parent == run_dir / "plots" for path in tmp_path.rglob("*.png"))
    assert "\\x00" in page.text and "\x00" not in page.text


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(CheckpointError, match=r"must have a chains\.json"):
        write_search_report(tmp_path)
    (tmp_path / "chains.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"chains\.json must describe the chains of a run"):
        write_report(tmp_path)
    run_dir = SearchFiles(tmp_path / "run").add("a", FORGETS_HALF).write()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="output must be writable"):
        write_report(run_dir, tmp_path / "file" / "x")


# A chain -----------------------------------------------------------------------------------------


def test_a_chain_has_its_matrix_in_the_report_of_its_run(tmp_path, without_run_plots):
    run_dir = chain_run(tmp_path)
    page = Page(write_report(run_dir))
    assert "Curriculum: what each stage learned and forgot" in page.text
    # level 1 lost 50 points, level 2 nothing; the mean beside them
    assert "forgetting50.00.025.0" in page.text and "level_240.080.060.0" in page.text
    assert (run_dir / "plots" / "matrix.png").exists()
    curriculum = summary_of(run_dir)["curriculum"]
    assert (curriculum["status"], curriculum["num_done"], curriculum["num_stages"]) == ("finished", 2, 2)
    assert curriculum["tagged"]["forgetting_by_level"] == pytest.approx({"1": 0.5, "2": 0.0})
    assert curriculum["tagged"]["metrics"]["backward_transfer"]["mean"] == pytest.approx(-0.5)
    assert len(curriculum["tagged"]["metrics"]["forgetting"]["interval"]) == 2


def test_a_chain_half_way_is_summarized_so_far(tmp_path):
    (chain,) = require_chains(chain_run(tmp_path, num_done=1)).chains
    summary = summarize_chain(chain, with_metrics=True)
    assert (summary["status"], summary["num_done"]) == ("unfinished", 1)
    assert summary["tagged"]["matrix"][-1] == {"1": 0.9, "2": 0.2}
    assert "level_1" in chain_section(chain, tmp_path) and (tmp_path / "matrix.png").exists()


def test_a_chain_without_evaluations_shows_a_note_instead_of_its_matrix(tmp_path):
    (chain,) = require_chains(chain_run(tmp_path, num_done=0, before=False)).chains
    assert "No stage has been evaluated yet." in chain_section(chain, tmp_path)
    assert not (tmp_path / "matrix.png").exists()


def test_a_run_without_a_curriculum_has_no_such_section(tmp_path, without_run_plots):
    assert "Curriculum" not in Page(write_report(make_run(tmp_path))).text
    assert "curriculum" not in summary_of(tmp_path)
