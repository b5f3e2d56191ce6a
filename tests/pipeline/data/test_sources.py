"""Rows from files, directories, hubs and embedded sets."""

from collections.abc import Iterator

import datasets
import pandas
import pytest

from pipeline.config import DataConfig, FieldNames
from pipeline.data import check_data, load_problems, sources
from pipeline.errors import DataError
from pipeline.types import SplitName
from tests.conftest import SHARED
from tests.support.data import write_jsonl
from tests.support.hub import SHA, UNREACHABLE, running_hub, use_hub

needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} does not exist")
MATH = FieldNames(question="problem", answer="solution", level="level", type="type")


# Files -------------------------------------------------------------------------------------------


def test_a_directory_holds_a_file_per_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", *({"question": f"{i}?", "answer": str(i)} for i in range(10)))
    write_jsonl(tmp_path / "test.jsonl", {"question": "t?", "answer": "0"})
    config = DataConfig(name=str(tmp_path), train_split="train[:20%]+train[9:]")
    assert [problem.gold for problem in load_problems(config, "train")] == ["0", "1", "9"]
    assert check_data(config) == f"{tmp_path}: 3 training and 1 held-out problems"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]


@pytest.fixture(scope="module")
def twenty_rows(tmp_path_factory) -> dict[str, str]:
    """The same rows in a file of each format."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"question": f"{index}?", "answer": str(index)} for index in range(20)]
    pandas.DataFrame(rows).to_parquet(folder / "all.parquet")
    return {".jsonl": write_jsonl(folder / "all.jsonl", *rows), ".parquet": str(folder / "all.parquet")}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("train[:3]", [0, 1, 2]),
        ("train[3:5]", [3, 4]),
        ("train[:10%]", [0, 1]),
        ("train[90%:]", [18, 19]),
        ("train[-2:]", [18, 19]),
        ("train[10:5000]", list(range(10, 20))),  # past the end there is nothing
        ("train[:1] + train[19:]", [0, 19]),
        ("train", list(range(20))),
    ],
)
def test_splits_are_read_as_the_datasets_library_does(twenty_rows, suffix, expression, expected):
    problems = load_problems(DataConfig(name=twenty_rows[suffix], train_split=expression), "train")
    assert [int(problem.gold) for problem in problems] == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("train[:x]", r"has no split 'train\[:x\]': Unrecognized instruction format"),
        ("train[:0.5]", "Unrecognized instruction format"),
        ("train[:101%]", "Percent slice boundaries must be"),
        ("", "has no split ''"),
        ("train[20:]", r"must have rows, got no rows in split train\[20:\]"),
        ("dev[:5]", r"has no split dev\[:5\]: it has train\."),
    ],
)
def test_a_wrong_split_is_a_one_line_error(twenty_rows, expression, message):
    config = DataConfig(name=twenty_rows[".jsonl"], train_split=expression)
    with pytest.raises(DataError, match=message) as caught:
        load_problems(config, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "./nowhere"}, r"\./nowhere does not exist"),
        ({"name": "nowhere.jsonl"}, r"nowhere\.jsonl does not exist"),
        ({"name": "embedded:algebra"}, "must be embedded:arithmetic or embedded:operations"),
        ({"name": "embedded:arithmetic", "train_split": "train[:9]"}, "must be train and test"),
        ({"name": "a/b", "hub": "modelscope"}, "pip install modelscope"),
        ({"train_split": "dev"}, "has no split dev: it has broken, train"),
        ({"train_split": "train[:x]"}, r"Unrecognized instruction format: train\[:x\]"),
        ({"train_split": "broken"}, r"broken\.jsonl line 1 must be a JSON object: Expecting value at column 14"),
        ({"fields": FieldNames(answer="gold", level="level")}, "has no field gold, level: it has question, answer"),
    ],
)
def test_unusable_data_is_a_one_line_error(tmp_path, changes, message):
    write_jsonl(tmp_path / "train.jsonl", {"question": "?", "answer": "1"})
    (tmp_path / "broken.jsonl").write_text('{"question": ')
    config = DataConfig(**{"name": str(tmp_path), **changes})
    with pytest.raises(DataError, match=message) as caught:
        load_problems(config, "train")
    assert "\n" not in str(caught.value)


# Embedded sets -----------------------------------------------------------------------------------


def test_an_embedded_set_is_generated_once_per_settings_and_split(monkeypatch):
    generated = []

    def generate(settings, split):
        generated.append((settings.train_per_level, split))
        return [{"question": "1 + 1?", "answer": "2", "solution": None, "level": "1"}]

    monkeypatch.setitem(sources._EMBEDDED, "embedded:test", generate)
    whole = DataConfig(name="embedded:test")
    small = DataConfig.model_validate({"name": "embedded:test", "arithmetic": {"train_per_level": 7}})
    calls: list[tuple[DataConfig, SplitName]] = [(whole, "train"), (small, "train"), (whole, "eval"), (small, "train")]
    for config, split in calls:
        assert load_problems(config, split)[0].gold == "2"
    assert generated == [(600, "train"), (7, "train"), (600, "eval")]


# Hub data ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub_url() -> Iterator[str]:
    with running_hub() as url:
        yield url


def test_hub_data_is_loaded_and_found_again_offline(hub_url, tmp_path, monkeypatch):
    config = DataConfig(name="tiny/sums", train_split="train[1:]")
    use_hub(monkeypatch, hub_url, tmp_path)
    assert check_data(config) == f"tiny/sums on the Hugging Face hub, revision {SHA}"
    assert not list(tmp_path.rglob("*.arrow"))
    assert [problem.gold for problem in load_problems(config, "train")] == ["4"]
    online = sources.source_digest(config, "train")
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    assert [problem.gold for problem in load_problems(config, "train")] == ["4"]
    assert sources.source_digest(config, "train") == online
    assert check_data(config).startswith("tiny/sums, in cache: ")


def test_hub_data_is_read_by_its_features(monkeypatch):
    features = datasets.Features(
        question=datasets.Value("string"),
        answer=datasets.Value("float32"),
        level=datasets.ClassLabel(names=["easy", "hard"]),
        unused=datasets.List(datasets.Value("int8")),
    )
    columns = {"question": ["a?", "b?", "c?"], "answer": [0.1, None, 10.0], "level": [1, 0, 0], "unused": [[1, 2]] * 3}
    dataset = datasets.Dataset.from_dict(columns, features)
    monkeypatch.setattr(sources, "_hub_dataset", lambda config, expression: dataset)
    config = DataConfig(name="a/b", fields=FieldNames(level="level"))
    problems = load_problems(config, "train")
    assert [(problem.gold, problem.level) for problem in problems] == [("0.1", "hard"), ("10", "easy")]
    with pytest.raises(DataError, match=r"^a/b row 1: field unused must be one text or number, got a list of 2"):
        load_problems(config.model_copy(update={"fields": FieldNames(answer="unused")}), "train")
    with pytest.raises(DataError, match="has no field gold: it has question, answer, level"):
        load_problems(config.model_copy(update={"fields": FieldNames(answer="gold")}), "train")


def test_hub_data_is_pinned_to_a_commit_and_read_at_it(hub_url, tmp_path, monkeypatch):
    use_hub(monkeypatch, hub_url, tmp_path)
    pinned = sources.pinned_data(DataConfig(name="tiny/sums"))
    assert pinned.revision == SHA
    assert [problem.gold for problem in load_problems(pinned, "train")] == ["2", "4"]
    assert sources.pinned_data(pinned) is pinned
    with monkeypatch.context() as patch:
        asked: list[dict[str, str | None]] = []
        patch.setattr("datasets.load_dataset", lambda *_, **named: asked.append(named))
        sources._hub_dataset(pinned, "train")
    assert [named["revision"] for named in asked] == [SHA]
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    unreachable = DataConfig(name="tiny/sums")
    assert sources.pinned_data(unreachable) is unreachable


def test_unreachable_hub_data_is_a_one_line_error(tmp_path, monkeypatch):
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    for ask in (check_data, lambda config: load_problems(config, "train")):
        with pytest.raises(DataError, match="data tiny/sums cannot be downloaded") as caught:
            ask(DataConfig(name="tiny/sums"))
        assert "\n" not in str(caught.value)


# The real files ----------------------------------------------------------------------------------


@needs_shared_data
def test_gsm8k():
    config = DataConfig(name=str(SHARED / "gsm8k"), answer_format="hash")
    train, held_out = load_problems(config, "train"), load_problems(config, "eval")
    assert (len(train), len(held_out)) == (7473, 1319)
    assert train[0].gold == "72"
    assert not any("<<" in str(problem.solution) or "####" in str(problem.solution) for problem in train)


@needs_shared_data
def test_math():
    config = DataConfig(name=str(SHARED / "math"), answer_format="boxed", fields=MATH)
    train = load_problems(config, "train")
    assert len(train) == 7498  # two of 7,500 end in an empty \boxed{}
    assert len(load_problems(config, "eval")) == 5000
    assert sum(problem.level == "Level 1" for problem in train) == 564


@needs_shared_data
def test_metamathqa_is_divided_by_split_expressions():
    fields = FieldNames(question="query", answer="response")
    name = str(SHARED / "metamathqa" / "train_sample.jsonl")
    config = DataConfig(
        name=name, fields=fields, answer_format="phrase", train_split="train[:10]", eval_split="train[10:12]"
    )
    assert check_data(config).endswith("10 training and 2 held-out problems")
