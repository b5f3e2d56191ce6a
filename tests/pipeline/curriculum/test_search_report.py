import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from pipeline.curriculum.chain_results import read_chains
from pipeline.curriculum.search_report import search_statements, search_tables, write_search_report
from pipeline.errors import CheckpointError
from pipeline.evaluation.held_out import accuracy_by_level
from pipeline.files import write_json, write_jsonl
from pipeline.report import write_report
from tests.pipeline.test_report import Page, fingerprint
from tests.support.runs import HOSTILE, make_run

NUM_PROBLEMS = 10  # per level: a tenth is one problem

# Columns of the matrix, one per level, in tenths; rows: before, after stage 1, after stage 2.
FORGETS_HALF = [[1, 9, 4], [0, 2, 8]]  # level 1 falls by 50 points
FORGETS_LITTLE = [[1, 9, 8], [0, 2, 8]]  # by 10
MIXED = [[1, 6], [0, 6]]  # one stage


def rows(tenths: Sequence[int], levels: list[str]) -> list[dict]:
    """Evaluated problems: the first ones right when tagged, all of them by the last number."""
    return [
        {"level": level, "problem_id": f"{level}-{i}", "tagged": i < right, "last_number": True, "outcome": "correct"}
        | {"num_tokens": 9, "truncated": False}
        for level, right in zip(levels, tenths, strict=True)
        for i in range(NUM_PROBLEMS)
    ]


def write_evaluation(directory: Path, name: str, step: int, found: list[dict]) -> None:
    (directory / "eval").mkdir(parents=True, exist_ok=True)
    (directory / "samples").mkdir(exist_ok=True)
    write_json(directory / "eval" / f"{name}.json", {"name": name, "step": step, **accuracy_by_level(found)})
    write_jsonl(directory / "samples" / f"eval_{name}.jsonl", found)


class Search:
    """Writes the files of a search, a chain at a time."""

    def __init__(self, run_dir: Path, levels: tuple[str, ...] = ("1", "2")) -> None:
        self.path, self.levels = run_dir, list(levels)
        self.chains: list[dict] = []
        self.outcome: dict[str, dict] = {}

    def add(
        self, setting, columns, seed=0, *, ratio=None, baseline=False, keys=(), num_done=None, before=True, **ending
    ):
        """Stage i trains on level i; a chain of one stage on all. ``keys``: of the stages it shares."""
        name = f"{setting},seed={seed}"
        after = list(zip(*columns, strict=True))[1:]
        stages = []
        for index, tenths in enumerate(after):
            key = keys[index] if index < len(keys) else f"{len(self.chains)}-{index}"
            stage = f"level_{index + 1}" if len(after) > 1 else "level_mixed"
            levels = [self.levels[index]] if len(after) > 1 else None
            directory = f"stages/{key}"
            stages.append({"name": stage, "kind": "sft", "levels": levels, "key": key, "directory": directory})
            if num_done is not None and index >= num_done:
                continue
            write_evaluation(self.path / directory, stage, index + 1, rows(tenths, self.levels))
            if index == 0 and before:
                write_evaluation(self.path / directory, "before", 0, rows([c[0] for c in columns], self.levels))
            result = {"key": key, "name": stage, "chain": name, "score": 0.5}
            result |= {"started": 1000.0 + 60 * index, "ended": 1060.0 + 60 * index}
            (self.path / "results").mkdir(exist_ok=True)
            (self.path / "results" / f"{key}.json").write_text(json.dumps(result))
        values = {"seed": seed} | ({} if ratio is None else {"curriculum.replay_ratio": ratio})
        chain = {"name": name, "setting": setting, "seed": seed, "is_baseline": baseline}
        self.chains.append({**chain, "values": values, "stages": stages})
        if ending:
            self.outcome[name] = {"num_done": num_done, "score": None, **ending}
        return self

    def write(self) -> Path:
        self.path.mkdir(exist_ok=True)
        write_json(self.path / "chains.json", {"kind": "search", "chains": self.chains})
        if self.outcome:
            write_json(self.path / "outcome.json", self.outcome)
        return self.path


def finished_search(run_dir: Path) -> Path:
    """Two ratios that share their first stage, and the baseline, two seeds each."""
    search = Search(run_dir)
    for seed in (0, 1):
        search.add("replay_ratio=0.0", FORGETS_HALF, seed, ratio=0.0, keys=[f"first{seed}"])
        search.add("replay_ratio=0.5", FORGETS_LITTLE, seed, ratio=0.5, keys=[f"first{seed}"])
        search.add("level_order=mixed", MIXED, seed, baseline=True)
    return search.write()


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> Path:
    run_dir = finished_search(tmp_path_factory.mktemp("search"))
    write_report(run_dir)
    return run_dir


def summary_of(run_dir: Path) -> dict:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads((run_dir / "summary.json").read_text(), parse_constant=refuse)


def lines_of(run_dir: Path) -> list[list[str]]:
    console = Console(width=160, record=True)
    console.print(*search_tables(run_dir))
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


# A search ----------------------------------------------------------------------------------------


def test_a_chain_that_forgets_half_says_so_in_the_table(search):
    lines = lines_of(search)
    # accuracy (40 + 80) / 2; forgetting (50 + 0) / 2; of trained levels 50; level 2 was at 20, and 0 before
    assert lines[0] == ["replay_ratio=0.0", "60.0", "25.0", "50.0", "-50.0", "20.0"]
    assert lines[1][0] == "2 of 2 seeds" and lines[1][1].startswith("[") and lines[2][1] == "range 0.0"
    assert lines[3] == ["replay_ratio=0.5", "80.0", "5.0", "10.0", "-10.0", "20.0"]
    assert lines[6] == ["level_order=mixed (baseline)", "60.0", "0.0", "-", "-", "-"]
    assert len(lines) == 9  # no table of unfinished chains


def test_the_statements_compare_and_tell_the_trend(search):
    compared, sloped = search_statements(search)
    assert compared.startswith("Best by average accuracy: replay_ratio=0.5, +20.0 points against level_order=mixed [")
    # 20 points less at 0.5 than at 0
    assert sloped.startswith("Forgetting falls as the replay ratio rises: -4.0 points for each 0.1 [")


def test_the_summary_of_a_search(search):
    summary = summary_of(search)
    assert summary["kind"] == "search" and summary["num_chains"] == {"finished": 6}
    # 2 seeds x (2 + 2 + 1) stages, two of them in two chains; each takes 60 s, the second ones start at 60
    stages = {"num_in_chains": 10, "num_different": 8, "num_shared": 2, "num_trained": 8}
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


def test_names_of_settings_are_whole_on_a_narrow_terminal(search):
    console = Console(width=100, record=True)
    console.print(*search_tables(search))
    text = console.export_text()
    assert "replay_ratio=0.5" in text and "-30.0" in text and "…" not in text


def test_output_dir_leaves_the_search_untouched(search, tmp_path):
    before = fingerprint(search)
    assert write_report(search, tmp_path / "out") == tmp_path / "out" / "report.html"
    assert fingerprint(search) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plots", "summary.json", "report.html"}


# Searches that are not whole ---------------------------------------------------------------------


def test_failed_and_stopped_chains_are_named_with_their_reason(tmp_path):
    search = Search(tmp_path)
    search.add("a", FORGETS_HALF).add("a", FORGETS_HALF, 1, num_done=1, status="failed", error="worker died: <b>")
    search.add("b", FORGETS_HALF, num_done=1, status="stopped").add("c", FORGETS_HALF, num_done=0)
    run_dir = search.write()
    lines = lines_of(run_dir)
    assert lines[0][:2] == ["a", "60.0"] and lines[1][0] == "1 of 2 seeds" and lines[2][1] == "one seed"
    assert lines[3:5] == [["b", "-", "-", "-", "-", "-"], ["0 of 1 seeds", "", "", "", "", ""]]
    assert lines[7:] == [
        ["a,seed=1", "failed", "1 of 2", "0.500", "worker died: <b>"],
        ["b,seed=0", "stopped", "1 of 2", "0.500", "-"],
        ["c,seed=0", "unfinished", "0 of 2", "-", "-"],
    ]
    write_report(run_dir)
    assert summary_of(run_dir)["num_chains"] == {"finished": 1, "failed": 1, "stopped": 1, "unfinished": 1}
    assert (run_dir / "plots" / "matrix_b,seed=0.png").exists()  # what is known of a stopped chain is shown
    assert not (run_dir / "plots" / "matrix_c,seed=0.png").exists()
    page = Page(run_dir / "report.html")
    assert "worker died: <b>" in page.text and ("b", {}) not in page.tags[page.tags.index(("small", {})) :]


def test_a_search_that_has_nothing_yet_is_reported(tmp_path):
    run_dir = Search(tmp_path / "run").add("a", FORGETS_HALF, num_done=0).write()
    assert search_statements(run_dir) == ["No chain has finished: there is nothing to compare yet."]
    assert "unfinished" in Page(write_report(run_dir)).text
    assert summary_of(run_dir)["tagged"]["settings"] == []


def test_results_that_are_newer_than_the_outcome_count(tmp_path):
    run_dir = Search(tmp_path).add("a", FORGETS_HALF, status="failed", error="once").write()
    chains = read_chains(run_dir)
    assert chains and [(c.status, c.problem) for c in chains.chains] == [("finished", "")]


def test_without_an_evaluation_before_training_only_what_needs_it_is_left_out(tmp_path):
    search = Search(tmp_path)
    search.add("r0", FORGETS_HALF, ratio=0.0, before=False).add("r5", FORGETS_LITTLE, ratio=0.5, before=False)
    run_dir = search.write()
    assert lines_of(run_dir)[0] == ["r0", "60.0", "-", "50.0", "-50.0", "-"]
    statements = search_statements(run_dir)
    assert statements[1].startswith("Trained forgetting falls as the replay ratio rises: -8.0 points for each 0.1")
    assert statements[2].startswith("The model was not evaluated before training")
    write_report(run_dir)
    assert summary_of(run_dir)["chains"][0]["tagged"]["matrix"][0] == {"1": None, "2": None}


@pytest.mark.parametrize(
    ("chains", "compared", "sloped"),
    [
        ([("a", 0, 0.1, False, 2)], "There is no baseline", "the search does not vary it"),
        ([("a", 0, 0.1, False, 2), ("m", 0, None, True, 0)], "no chain of m has finished", "does not vary it"),
        ([("a", 0, 0.1, False, 0), ("m", 0, None, True, 2)], "no chain but those of the baseline m", "does not vary"),
        ([("a", 0, 0.1, False, 2), ("b", 0, 0.2, False, 1)], "no baseline", "fewer than two replay ratios"),
        ([("a", 0, 0.1, False, 2), ("b", 1, 0.2, False, 2)], "no baseline", "a seed in common"),
        ([("a", 0, 0.1, False, 2), ("m", 1, None, True, 2)], "must have a seed in common", "does not vary it"),
    ],
)
def test_it_is_said_why_there_is_nothing_to_compare(tmp_path, chains, compared, sloped):
    search = Search(tmp_path)
    for setting, seed, ratio, baseline, num_done in chains:
        search.add(setting, FORGETS_HALF, seed, ratio=ratio, baseline=baseline, num_done=num_done)
    statements = search_statements(search.write())
    if len(statements) == 1:
        assert statements == ["No chain has finished: there is nothing to compare yet."]
    else:
        assert compared in statements[0] and sloped in statements[1]


def test_one_seed_is_said_to_be_one(tmp_path):
    search = Search(tmp_path).add("a", FORGETS_LITTLE).add("m", MIXED, baseline=True)
    assert "cannot be said with one seed" in search_statements(search.write())[0]


def test_the_first_baseline_is_compared_with_and_the_others_are_no_rivals(tmp_path):
    search = Search(tmp_path).add("m", MIXED, baseline=True).add("n", [[1, 10], [0, 10]], baseline=True)
    run_dir = search.add("a", FORGETS_LITTLE).write()
    assert search_statements(run_dir)[0].startswith("Best by average accuracy: a, +20.0 points against m")


def test_chains_measured_on_other_problems_are_left_out(tmp_path):
    run_dir = Search(tmp_path).add("a", FORGETS_HALF).add("b", FORGETS_LITTLE).write()
    write_evaluation(tmp_path / "stages" / "1-1", "level_2", 2, rows([8, 8], ["1", "3"]))
    assert lines_of(run_dir)[-1][:2] == ["b,seed=0", "finished"]
    assert "held-out problems of the first chain" in lines_of(run_dir)[-1][4]


def test_a_stage_without_its_evaluation_leaves_its_chain_out(tmp_path):
    run_dir = Search(tmp_path).add("a", FORGETS_HALF).write()
    (tmp_path / "stages" / "0-1" / "samples" / "eval_level_2.jsonl").unlink()
    assert lines_of(run_dir)[-1] == ["a,seed=0", "finished", "2 of 2", "0.500", "not evaluated after level_2"]


def test_hostile_names_are_shown_and_do_nothing(tmp_path):
    search = Search(tmp_path, levels=(f"{HOSTILE}1", f"{HOSTILE}2"))
    search.add(f"../../{HOSTILE}", FORGETS_HALF, ratio=0.0).add(f"$x_{HOSTILE}", FORGETS_LITTLE, ratio=0.5)
    search.add("$\\frac", FORGETS_HALF, num_done=1, status="failed", error=HOSTILE)
    run_dir = search.write()
    page = Page(write_report(run_dir))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert all(attrs["src"].startswith("data:") for tag, attrs in page.tags if tag == "img")
    assert all(path.parent == run_dir / "plots" for path in tmp_path.rglob("*.png"))
    assert "\x00" not in str(lines_of(run_dir)) and "\\x00" in str(search_statements(run_dir)) + page.text


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
        write_report(tmp_path)
    assert reason in str(raised.value)


def test_other_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(CheckpointError, match=r"must have a chains\.json"):
        write_search_report(tmp_path)
    run_dir = Search(tmp_path / "run").add("a", FORGETS_HALF).add("a", FORGETS_HALF).write()
    with pytest.raises(CheckpointError, match="must name every chain differently"):
        write_report(run_dir)
    run_dir = Search(tmp_path / "rows").add("a", FORGETS_HALF).write()
    (run_dir / "stages" / "0-0" / "samples" / "eval_before.jsonl").write_text('{"level": "1"}\n')
    with pytest.raises(CheckpointError, match=r"eval_before\.jsonl must hold evaluated problems"):
        write_report(run_dir)
    run_dir = finished_search(tmp_path / "whole")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="output must be writable"):
        write_report(run_dir, tmp_path / "file" / "x")


# A chain -----------------------------------------------------------------------------------------


def chain_run(run_dir: Path, num_done: int = 2, before: bool = True) -> Path:
    make_run(run_dir, num_evals=0)
    stages = [
        {"name": f"level_{level}", "kind": "sft", "levels": [level], "key": None, "directory": "."} for level in "12"
    ]
    chain = {"name": "chain", "setting": "default", "seed": 0, "is_baseline": False, "values": {}, "stages": stages}
    (run_dir / "chains.json").write_text(json.dumps({"kind": "chain", "chains": [chain]}))
    names = ["before", "level_1", "level_2"][: num_done + 1]
    for index, name in enumerate(names):
        if index or before:
            write_evaluation(run_dir, name, index, rows([column[index] for column in FORGETS_HALF], ["1", "2"]))
    return run_dir


def test_a_chain_has_its_matrix_in_the_report_of_its_run(tmp_path):
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
    assert lines_of(run_dir)[0][:2] == ["default", "60.0"]


def test_a_chain_half_way_is_reported_so_far(tmp_path):
    run_dir = chain_run(tmp_path, num_done=1)
    write_report(run_dir)
    curriculum = summary_of(run_dir)["curriculum"]
    assert (curriculum["status"], curriculum["num_done"]) == ("unfinished", 1)
    assert curriculum["tagged"]["matrix"][-1] == {"1": 0.9, "2": 0.2}


def test_a_chain_without_evaluations_says_so(tmp_path):
    run_dir = chain_run(tmp_path, num_done=0, before=False)
    assert "No stage has been evaluated yet." in Page(write_report(run_dir)).text
    assert not (run_dir / "plots" / "matrix.png").exists()


def test_a_run_without_a_curriculum_has_no_such_section(tmp_path):
    assert read_chains(tmp_path) is None
    assert "Curriculum" not in Page(write_report(make_run(tmp_path))).text
    assert "curriculum" not in summary_of(tmp_path)


def test_a_stage_without_levels_trained_on_all(tmp_path):
    chains = read_chains(Search(tmp_path).add("m", MIXED, baseline=True).write())
    assert chains and chains.complete("tagged")[0].first_trained() == (1, 1)
