"""Loading data sets, and choosing among their problems."""

import json

import pytest

from pipeline.errors import DataError
from pipeline.evaluation.datasets import is_lean, load_data_set
from pipeline.evaluation.registry import DATA_SETS
from tests.conftest import ROOT, SHARED
from tests.support.evaluations import evaluation_config

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which a user's clone lacks")


@needs_shared
@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("name", [name for name, entry in DATA_SETS.items() if entry.local])
def test_registered_sets_have_the_size_that_is_stated(name):
    loaded = load_data_set(name, evaluation_config(name, data_root=str(SHARED)))
    assert len(loaded.problems) == DATA_SETS[name].size
    assert len({problem.id for problem in loaded.problems}) == len(loaded.problems)
    assert all(problem.question and problem.gold for problem in loaded.problems)


@pytest.mark.parametrize(
    ("name", "levels"),
    [("embedded:arithmetic", "12345"), ("embedded:operations", "12345"), ("embedded:stories", "123")],
)
def test_embedded_sets_have_the_size_that_is_stated(name, levels):
    loaded = load_data_set(name, evaluation_config(name))
    assert len(loaded.problems) == DATA_SETS[name].size
    assert {problem.level for problem in loaded.problems} == set(levels)


def test_every_registered_set_is_available_and_documented():
    document = (ROOT / "docs" / "evaluation.md").read_text()
    for name, entry in DATA_SETS.items():
        assert entry.hub or entry.local or name.startswith("embedded:")
        assert f"| `{name}` | {entry.size:,} | {entry.answer_form} | {entry.licence} |" in document


@needs_shared
@pytest.mark.usefixtures("read_once")
def test_combibench_is_asked_where_it_can_be_scored_and_the_rest_is_counted():
    loaded = load_data_set("combibench", evaluation_config("combibench", data_root=str(SHARED)))
    assert (loaded.num_rows, loaded.num_without_answer, len(loaded.unscorable)) == (100, 55, 17)
    assert "imo_2014_p2" in loaded.unscorable and "hackmath_6" not in loaded.unscorable


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("fun n => 2 * n ^ 2 - 2 * n + 1", True),
        ("{x | \u2203 m > 0, 2 ^ m - 1 = x}", True),
        ("PowerSeries.X * PowerSeries.inv (1 - PowerSeries.X) ^ 4", True),
        ("1716", False),
        ("1 / 2", False),
        ("[3 / 4, 3 / 4, 1 / 2]", False),
        ("false", False),
    ],
)
def test_lean_terms(gold, expected):
    assert is_lean(gold) is expected


@needs_shared
@pytest.mark.usefixtures("read_once")
def test_olympiad_problems_have_a_source_a_difficulty_and_a_type():
    problems = load_data_set("olympiad", evaluation_config("olympiad", data_root=str(SHARED))).problems
    assert len({problem.source for problem in problems}) == 6
    assert "8" in {problem.difficulty for problem in problems}
    assert "Mathematics -> Algebra" in {problem.type for problem in problems}


@needs_shared
@pytest.mark.usefixtures("read_once")
def test_a_subset_by_row_numbers_or_ids(tmp_path):
    whole = load_data_set("gsm8k", evaluation_config(data_root=str(SHARED))).problems
    index = tmp_path / "index.json"
    index.write_text(json.dumps([3, 1000, whole[7].id]))
    chosen = load_data_set(
        "gsm8k", evaluation_config(data_root=str(SHARED), problems={"index_file": str(index)})
    ).problems
    assert [problem.id for problem in chosen] == [whole[3].id, whole[7].id, whole[1000].id]
    index.write_text("[1319]")
    with pytest.raises(DataError, match="must hold only rows of the data set, which has 1319, got 1319"):
        load_data_set("gsm8k", evaluation_config(data_root=str(SHARED), problems={"index_file": str(index)}))


def test_a_local_set_with_filters(sums):
    data = {"fields": {"level": "level"}}
    loaded = load_data_set(str(sums), evaluation_config(str(sums), data=data))
    assert (len(loaded.problems), loaded.num_rows, loaded.num_without_answer, loaded.licence) == (7, 8, 1, None)
    odd = load_data_set(str(sums), evaluation_config(str(sums), data=data, problems={"levels": ["1"]}))
    assert [problem.gold for problem in odd.problems] == ["2", "4", "6"] and odd.num_filtered == 4
    drawn, *others = (
        load_data_set(str(sums), evaluation_config(str(sums), data=data, problems={"max_problems": 3}, seed=seed))
        for seed in range(6)
    )
    assert len(drawn.problems) == 3
    assert any(other.problems != drawn.problems for other in others)  # of 35 draws, one seed may give the same
    assert [p.id for p in loaded.problems if p in drawn.problems] == [p.id for p in drawn.problems]


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("gsm9k", {}, "dataset must be registered .*gsm8k.*, got gsm9k"),
        ("combibench", {}, "dataset combibench has no registered hub location. Set data_root"),
        ("math500", {"data_root": "/tmp"}, "dataset math500 has no local form.*index_file"),
        ("/nowhere/x.jsonl", {}, "/nowhere/x.jsonl does not exist"),
        (
            "SUMS",
            {"problems": {"levels": ["9"]}, "data": {"fields": {"level": "level"}}},
            "got 0 of 7 after .*There are levels 0, 1",
        ),
        (
            "SUMS",
            {"data": {"answer_format": "boxed"}},
            "must have rows with a question and a gold answer, and has none in 8 rows",
        ),
        ("SUMS", {"data": {"fields": {"answer": "gold"}}}, "has no field gold: it has question, answer, level"),
        ("SUMS", {"prompt": {"num_shots": 9}}, "prompt.num_shots must be at most .*got 9 of 4"),
    ],
)
def test_unusable_data_is_an_error(sums, dataset, settings, message):
    name = str(sums) if dataset == "SUMS" else dataset
    with pytest.raises(DataError, match=message):
        load_data_set(name, evaluation_config(name, **settings))
