"""Small data sets as people have them, in training, evaluation and splits: read as they are meant, or refused."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import DataConfig
from pipeline.data import check_data, load_problems
from pipeline.data.splits import SplitSettings
from pipeline.data.splits.records import read_records
from pipeline.errors import DataError
from pipeline.evaluation.datasets import load_data_set
from pipeline.models.tokenizer import prompt_token_ids
from tests.support.data import write_jsonl, write_parquet
from tests.support.evaluations import evaluation_config
from tests.support.models import tiny_tokenizer

VERL = {"question": "prompt", "answer": "reward_model.ground_truth"}
USER = {"role": "user", "content": "1+1?"}
LEVELS = {"level": {"_type": "ClassLabel", "names": ["easy", "hard"]}}


def written(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def data(name: str, **settings) -> DataConfig:
    return DataConfig.model_validate({"name": name, "eval_split": "train", **settings})


def golds(name: str, **settings) -> list[str]:
    """The gold answers, the same in training and in evaluation."""
    config = data(name, **settings)
    trained = [problem.gold for problem in load_problems(config, "train")]
    evaluated = load_data_set(name, evaluation_config(name, data=config.model_dump()))
    assert [problem.gold for problem in evaluated.problems] == trained
    return trained


def check_refused(message: str, name: str, **settings) -> None:
    """Training, ``--dry-run`` and evaluation refuse the data with the same line."""
    config = data(name, **settings)
    with pytest.raises(DataError, match=message) as trained:
        load_problems(config, "train")
    with pytest.raises(DataError) as checked:
        check_data(config)
    with pytest.raises(DataError) as evaluated:
        load_data_set(name, evaluation_config(name, data=config.model_dump()))
    assert str(trained.value) == str(checked.value) == str(evaluated.value)
    assert "\n" not in str(trained.value)


# Numbers, dates and bytes ------------------------------------------------------------------------


def test_large_integers_keep_their_digits(tmp_path):
    name = written(tmp_path / "a.jsonl", f'{{"question": "2^80?", "answer": {2**80}}}\n')
    assert golds(name) == ["1208925819614629174706176"]


def test_whole_floats_are_integers(tmp_path):
    text = '{"question": "5+5?", "answer": 10.0, "level": 1}\n{"question": "1/2?", "answer": 0.5, "level": 2.0}\n'
    name = written(tmp_path / "a.jsonl", text)
    assert golds(name) == ["10", "0.5"]
    assert [p.level for p in load_problems(data(name, fields={"level": "level"}), "train")] == ["1", "2"]
    floats = write_parquet(tmp_path / "a.parquet", {"question": ["a?", "b?"], "answer": [10.0, 2.5]})
    assert golds(floats) == ["10", "2.5"]


def test_levels_do_not_depend_on_other_rows(tmp_path):
    """A missing level or a fraction does not turn the others into floats."""
    for split, levels in (("train", [1, 2]), ("test", [1, None, 2.5])):
        rows = [{"question": f"{level}?", "answer": "2", "level": level} for level in levels]
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", *rows)
    config = DataConfig.model_validate({"name": str(tmp_path / "set"), "fields": {"level": "level"}})
    assert [problem.level for problem in load_problems(config, "train")] == ["1", "2"]
    assert [problem.level for problem in load_problems(config, "eval")] == ["1", None, "2.5"]


def test_a_column_may_change_its_type_far_into_the_file(tmp_path):
    rows = [{"question": f"{n}?", "answer": n, "unused": {"a": n}} for n in range(2000)]
    rows += [{"question": "last?", "answer": "x", "unused": ["a", 1]}, {"question": "more?", "answer": 0.5, "new": 1}]
    assert golds(write_jsonl(tmp_path / "a.jsonl", *rows))[-3:] == ["1999", "x", "0.5"]


def test_missing_answers_are_left_out_and_counted(tmp_path, caplog):
    name = written(tmp_path / "a.jsonl", '{"question": "a?", "answer": NaN}\n{"question": "b?", "answer": 1.5}\n')
    assert golds(name) == ["1.5"]
    assert "left out 1 of 2 rows" in caplog.text
    columns = {"question": ["a?", "b?", "c?"], "answer": [2.0, float("nan"), None]}
    assert golds(write_parquet(tmp_path / "a.parquet", columns)) == ["2"]
    assert "left out 2 of 3 rows" in caplog.text


def test_bytes_are_utf8_or_refused(tmp_path):
    assert golds(write_parquet(tmp_path / "a.parquet", {"question": ["a?"], "answer": [b"2"]})) == ["2"]
    wrong = write_parquet(tmp_path / "b.parquet", {"question": ["a?", "b?"], "answer": [b"2", b"\xff"]})
    check_refused(r"b\.parquet row 2: field answer must be UTF-8, got byte 0xff", wrong)


def test_dates_stay_text(tmp_path):
    assert golds(write_jsonl(tmp_path / "a.jsonl", {"question": "a?", "answer": "2024-01-01"})) == ["2024-01-01"]


def test_class_labels_are_names(tmp_path):
    name = write_parquet(tmp_path / "a.parquet", {"question": ["a?"], "answer": ["2"], "level": [1]}, LEVELS)
    [problem] = load_problems(data(name, fields={"level": "level"}), "train")
    assert problem.level == "hard"


def test_splits_are_made_of_the_same_texts(tmp_path):
    first, second = f'"answer": {2**80}, "level": 1.0', '"answer": NaN, "level": 2'
    name = written(tmp_path / "a.jsonl", f'{{"problem": "a?", {first}}}\n{{"problem": "b?", {second}}}\n')
    settings = SplitSettings(name, tmp_path / "out", answer_format="plain", solution_field="", type_field="")
    [record], left_out = read_records(settings)
    assert (record.answer, record.level) == ("1208925819614629174706176", "1")
    assert left_out.lines() == ["1 without an answer (a.jsonl row 2)"]


# Lists and structs -------------------------------------------------------------------------------


def test_a_list_of_one_is_that_one_and_a_list_of_two_is_refused(tmp_path):
    rows = [{"question": "1+1?", "answer": ["2"]}, {"question": "x^2=4?", "answer": ["2", "-2"]}]
    assert golds(write_jsonl(tmp_path / "one.jsonl", rows[0])) == ["2"]
    refusal = "field answer must be one text or number, got a list of 2"
    check_refused(rf"^two\.jsonl line 2: {refusal}", write_jsonl(tmp_path / "two.jsonl", *rows))
    columns = {"question": ["1+1?", "x^2=4?"], "answer": [["2"], ["2", "-2"]]}
    check_refused(rf"^two\.parquet row 2: {refusal}", write_parquet(tmp_path / "two.parquet", columns))


def test_a_list_in_a_template_is_refused(tmp_path):
    name = write_jsonl(tmp_path / "a.jsonl", {"question": "2+2?", "options": ["3", "4"], "answer": "4"})
    with pytest.raises(DataError, match=r"a\.jsonl line 1: field options must be .*, got a list of 2"):
        check_data(data(name, prompt_template="{question} {options}"))


# Broken files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question":"1?","answer":"2"}\n{"question":"caf\xe9?","answer":"2"}\n', r"^a\.jsonl line 2 must be UTF-8"),
        (b'{"question":"1?","answer":"2"}\n\n{"question":"2', r"^a\.jsonl line 3 must be a JSON object"),
        (b'[{"question":"1?","answer":"2"}]', r"^a\.jsonl line 1 must be a JSON object, got a list"),
        (b'{"question":"1?","answer":"\\ud800"}', r"^a\.jsonl line 1: field answer must be UTF-8, .* U\+D800"),
        (b"", r"a\.jsonl must have rows, got no rows in split train"),
        (b"\xef\xbb\xbf\r\n \r\n", "got no rows in split train"),
    ],
)
def test_an_unusable_jsonl_file_is_one_message(tmp_path, content, message):
    check_refused(message, written(tmp_path / "a.jsonl", content))


def test_an_unusable_parquet_file_is_one_message(tmp_path):
    columns = {name: pa.array([], pa.string()) for name in ("question", "answer")}
    check_refused(r"zero\.parquet must have rows, got no rows", write_parquet(tmp_path / "zero.parquet", columns))
    check_refused(r"a\.parquet cannot be read", written(tmp_path / "a.parquet", "garbage"))
    check_refused(r"b\.parquet cannot be read", written(tmp_path / "b.parquet", ""))


def test_windows_line_ends_byte_order_marks_and_blank_lines_do_no_harm(tmp_path):
    content = b'\xef\xbb\xbf{"question": "1+1?", "answer": 2}\r\n\r\n{"question": "1+2?", "answer": 3}'
    name = written(tmp_path / "a.jsonl", content)
    assert golds(name) == ["2", "3"]
    assert golds(name, train_split="train[1:]", eval_split="train[-1:]") == ["3"]


def test_two_files_of_one_split_are_an_error_that_names_both(tmp_path):
    write_jsonl(tmp_path / "both" / "train.jsonl", {"question": "from jsonl", "answer": "2"})
    write_parquet(tmp_path / "both" / "train.parquet", {"question": ["from parquet"], "answer": ["2"]})
    check_refused(r"got train\.jsonl and train\.parquet", str(tmp_path / "both"))
    with pytest.raises(DataError, match=r"got train\.jsonl and train\.parquet"):
        read_records(SplitSettings(str(tmp_path / "both"), tmp_path / "out"))


# Layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"layout": "verl"}, {"fields": VERL}])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_verl_files_are_read_by_dotted_fields_or_by_name(tmp_path, suffix, settings):
    row = {"data_source": "mine", "prompt": [USER], "reward_model": {"style": "rule", "ground_truth": "2"}}
    name = str(tmp_path / f"a.{suffix}")
    if suffix == "jsonl":
        write_jsonl(Path(name), row)
    else:
        write_parquet(Path(name), {key: [value] for key, value in row.items()})
    assert golds(name, **settings) == ["2"]
    [problem] = load_problems(data(name, **settings), "train")
    assert (problem.prompt, problem.question) == ((USER,), "1+1?")
    [asked] = load_data_set(name, evaluation_config(name, data=data(name, **settings).model_dump())).problems
    assert asked.messages == (USER,)
    struct = "reward_model must be .* got a struct.*: reward_model.style, reward_model.ground_truth"
    check_refused(struct, name, fields={"question": "prompt", "answer": "reward_model"})
    check_refused(
        r"has no field reward_model\.gold: it has data_source, prompt, reward_model\.style, reward_model\.ground_truth",
        name,
        fields={"question": "prompt", "answer": "reward_model.gold"},
    )


def test_the_fields_of_a_layout_can_be_changed():
    config = DataConfig.model_validate({"layout": "verl", "fields": {"question": "q", "level": "extra_info.level"}})
    assert config.fields.question == "q" and config.fields.answer == "reward_model.ground_truth"
    assert config.fields.level == "extra_info.level"
    assert DataConfig(layout="verl", fields=config.fields) == config == DataConfig.model_validate(config.model_dump())


def test_a_clone_of_a_hub_data_set_is_a_set(tmp_path):
    for split, gold in (("train", "2"), ("test", "3")):
        columns = {"question": ["1+1?"], "answer": [f"x #### {gold}"]}
        write_parquet(tmp_path / "clone" / "main" / f"{split}-00000-of-00001.parquet", columns)
    for name, subset in (("clone", "main"), ("clone/main", None), ("clone", None)):
        config = DataConfig(name=str(tmp_path / name), subset=subset, answer_format="hash")
        assert [load_problems(config, split)[0].gold for split in ("train", "eval")] == ["2", "3"]
        evaluated = load_data_set(config.name, evaluation_config(config.name, data=config.model_dump()))
        assert [problem.gold for problem in evaluated.problems] == ["3"]


# Questions that are messages ---------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [USER, {"role": "assistant", "content": "2"}, {"role": "user", "content": "And 2+2?"}]


@pytest.mark.parametrize(
    ("messages", "settings", "prompt"),
    [
        ([USER], {}, [USER]),
        ([USER], {"system_prompt": ""}, [USER]),
        ([USER], {"system_prompt": "Be brief."}, [SYSTEM, USER]),
        ([SYSTEM, USER], {"system_prompt": "Be long."}, [SYSTEM, USER]),
        (TURNS, {}, TURNS),
        ([{**USER, "name": None}], {}, [USER]),
    ],
)
def test_messages_are_used_as_they_are(tmp_path, messages, settings, prompt):
    name = write_jsonl(tmp_path / "a.jsonl", {"prompt": messages, "answer": "2"})
    [problem] = load_problems(data(name, fields={"question": "prompt"}, **settings), "train")
    assert list(problem.prompt) == prompt and problem.question == messages[-1]["content"]


def test_a_conversation_goes_through_the_chat_template(tmp_path):
    name = write_jsonl(tmp_path / "a.jsonl", {"prompt": TURNS, "answer": "2"})
    [problem] = load_problems(data(name, fields={"question": "prompt"}), "train")
    tokenizer = tiny_tokenizer()
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in TURNS)
    assert tokenizer.decode(prompt_token_ids(tokenizer, problem)) == f"{text}<|im_start|>assistant\n"


def test_the_id_of_a_conversation_depends_on_all_its_messages(tmp_path):
    conversations = [[USER], [SYSTEM, USER], TURNS, [*TURNS[:1], TURNS[1] | {"content": "3"}, TURNS[2]]]
    name = write_jsonl(tmp_path / "a.jsonl", *({"prompt": turns, "answer": "2"} for turns in conversations))
    ids = [problem.id for problem in load_problems(data(name, fields={"question": "prompt"}), "train")]
    text = write_jsonl(tmp_path / "b.jsonl", {"prompt": "1+1?", "answer": "2"})
    assert len(set(ids)) == 4
    assert ids[0] == load_problems(data(text, fields={"question": "prompt"}), "train")[0].id


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (TURNS[:2], "the last message of prompt must be the user's, got assistant"),
        ([{"role": "tool", "content": "1"}], "each message of prompt must have a role .* got role=tool, content=str"),
        ([{"from": "human", "value": "1"}], "got from=str, value=str"),
        ([{"role": "user", "content": [{"type": "text"}]}], "got role=user, content=list"),
        ([{**USER, "weight": 1}], "and nothing else, got role=user, content=str, weight"),
        ([USER, "more"], "got str"),
    ],
)
def test_other_lists_are_no_messages(tmp_path, messages, message):
    name = write_jsonl(tmp_path / "a.jsonl", {"prompt": messages, "answer": "2"})
    check_refused(rf"^a\.jsonl line 1: .*{message}", name, fields={"question": "prompt"})


def test_messages_do_not_fit_into_a_plain_prompt(tmp_path):
    name = write_jsonl(tmp_path / "a.jsonl", {"prompt": TURNS, "answer": "2"})
    with pytest.raises(DataError, match=r"a\.jsonl line 1: field prompt must be one text or number, got a list of 3"):
        load_problems(data(name, fields={"question": "prompt"}, prompt_template="Q: {prompt}"), "train")


@pytest.mark.parametrize(
    "text", ['[{"role": "user", "content": "1+1?"}]', "[{'content': '1+1?', 'role': 'user'}]", '{"role": "user"}']
)
@pytest.mark.parametrize("settings", [{"layout": "verl"}, {"fields": VERL, "prompt_template": "Q: {prompt} A:"}])
def test_messages_written_as_a_text_are_no_question(tmp_path, text, settings):
    name = write_jsonl(tmp_path / "a.jsonl", {"prompt": text, "reward_model": {"ground_truth": "2"}, "level": 1})
    refusal = r"a\.jsonl line 1: field prompt must be .*, got messages written as a text"
    with pytest.raises(DataError, match=refusal):
        load_problems(data(name, **settings), "train")
    settings = SplitSettings(
        name, tmp_path / "out", question_field="prompt", answer_format="plain", answer_field="level"
    )
    with pytest.raises(DataError, match=refusal):
        read_records(settings)


def test_a_question_about_lists_stays_a_question(tmp_path):
    text = '[{"a": 1}] has how many items?'
    name = write_jsonl(tmp_path / "a.jsonl", {"question": text, "answer": "1"})
    assert [problem.question for problem in load_problems(data(name), "train")] == [text]


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"^data\.name must name .*, got an empty text\.$"),
        (" ", "got an empty text"),
        ("a" * 5000, r"^data file or directory a{80}\.\.\. cannot be read: File name too long\. Check the path\.$"),
        ("~no-such-user/data", "cannot be read: Could not determine home directory"),
    ],
)
def test_a_name_that_cannot_be_a_path_is_one_message(name, message):
    check_refused(message, name)


def test_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "set" / "train.jsonl", {"question": "1+1?", "answer": "2", "level": 1})
    assert golds("~/set") == golds("~/set/train.jsonl") == ["2"]
    records, _ = read_records(
        SplitSettings(
            "~/set",
            tmp_path / "out",
            question_field="question",
            answer_format="plain",
            solution_field="",
            type_field="",
        )
    )
    assert [record.source for record in records] == ["set/train.jsonl"]


def test_broken_metadata_and_dates_beyond_python_are_one_message(tmp_path):
    table = pa.table({"question": ["a?"], "answer": pa.array([2**50], pa.timestamp("s"))})
    check_refused(
        r"a\.parquet rows from 1 on: field answer must hold dates", write_parquet(tmp_path / "a.parquet", table)
    )
    table = pa.table({"question": ["a?"], "answer": ["2"]}).replace_schema_metadata({"huggingface": "[]"})
    check_refused(r"^b\.parquet: the metadata 'huggingface' must be", write_parquet(tmp_path / "b.parquet", table))
