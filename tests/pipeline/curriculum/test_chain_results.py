import pytest

from pipeline.curriculum.chain_results import read_chains, require_chains
from pipeline.errors import CheckpointError
from tests.support.search_files import FORGETS_HALF, FORGETS_LITTLE, MIXED, SearchFiles, evaluated, write_evaluation


def problems_of(run_dir) -> list[tuple[str, str]]:
    """Status and problem of every chain."""
    return [(chain.status, chain.problem) for chain in require_chains(run_dir).chains]


def test_a_run_without_a_curriculum_has_no_chains(tmp_path):
    assert read_chains(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"must have a chains\.json, got none: it followed no curriculum"):
        require_chains(tmp_path)


def test_results_that_are_newer_than_the_outcome_count(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF, status="failed", error="once").write()
    assert problems_of(run_dir) == [("finished", "")]


def test_a_failed_chain_has_its_error(tmp_path):
    search = SearchFiles(tmp_path).add("a", FORGETS_HALF, num_done=1, status="failed", error="worker died")
    assert problems_of(search.write()) == [("failed", "worker died")]


def test_chains_measured_on_other_problems_are_left_out(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF).add("b", FORGETS_LITTLE).write()
    write_evaluation(tmp_path / "stages" / "1-1", "level_2", 2, evaluated([8, 8], ["1", "3"]))
    chains = require_chains(run_dir).chains
    assert [chain.is_complete for chain in chains] == [True, False]
    assert chains[1].status == "finished" and "held-out problems of the first chain" in chains[1].problem


def test_a_stage_without_its_evaluation_leaves_its_chain_out(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF).write()
    (tmp_path / "stages" / "0-1" / "samples" / "eval_level_2.jsonl").unlink()
    assert problems_of(run_dir) == [("finished", "not evaluated after level_2")]
    assert not require_chains(run_dir).complete("tagged")


def test_a_stage_without_levels_trained_on_all(tmp_path):
    results = require_chains(SearchFiles(tmp_path).add("m", MIXED, baseline=True).write())
    assert results.complete("tagged")[0].first_trained() == (1, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"kind": "search", "chains": []}', "chains: "),
        ('{"kind": "other", "chains": [{}]}', "kind: "),
        ('{"kind": "chain", "chains": [{"name": "a"}]}', "chains.0.setting: "),
    ],
)
def test_a_corrupt_file_is_named(tmp_path, text, reason):
    (tmp_path / "chains.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"chains\.json must describe the chains of a run") as raised:
        read_chains(tmp_path)
    assert reason in str(raised.value)


def test_chains_of_one_name_are_an_error(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF).add("a", FORGETS_HALF).write()
    with pytest.raises(CheckpointError, match="must name every chain differently"):
        read_chains(run_dir)


def test_an_evaluation_without_its_fields_is_an_error(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF).write()
    (run_dir / "stages" / "0-0" / "samples" / "eval_before.jsonl").write_text('{"level": "1"}\n')
    with pytest.raises(CheckpointError, match=r"eval_before\.jsonl must hold evaluated problems"):
        read_chains(run_dir)
