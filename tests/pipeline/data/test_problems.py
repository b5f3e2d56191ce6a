"""Rows become problems: prompt, gold answer, worked solution and id."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import DataConfig, FieldNames
from pipeline.data import load_problems, worked_solution
from pipeline.data.problems import prompt_template, question_alone, unique_name
from pipeline.errors import ConfigError, DataError
from pipeline.verifier import grade
from tests.conftest import ROOT, SHARED
from tests.support.data import write_jsonl
from tests.support.properties import examples

needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} does not exist")
CLIPS = {  # the first row of each file, shortened
    "question": "How many clips?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72",
}
LETTER = {"query": "Which graph is $\\{x\\}$?", "response": "It is $\\boxed{\\text{D}}$.The answer is: \\text{D}"}
SHOP = {"query": "How many lattes?", "response": "So it is 24 + 8 = 32.\n#### 32\nThe answer is: 32"}


def metamath(name: str, **settings) -> DataConfig:
    fields = FieldNames(question="query", answer="response")
    return DataConfig(
        **{"name": name, "fields": fields, "answer_format": "phrase", "prompt_template": "metamath", **settings}
    )


# Rows --------------------------------------------------------------------------------------------


def test_a_plain_row_becomes_a_problem(tmp_path):
    row = {"q": " 1 + 1? ", "a": 2, "how": "add", "grade": 3, "kind": "sum", "set": "gsm8k", "key": "k7"}
    fields = FieldNames(question="q", answer="a", solution="how", level="grade", type="kind", source="set", id="key")
    name = write_jsonl(tmp_path / "set.jsonl", row)
    [problem] = load_problems(DataConfig(name=name, fields=fields, system_prompt="Be brief."), "train")
    assert problem.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    assert (problem.gold, problem.level, problem.type, problem.id) == ("2", "3", "sum", "k7")
    assert problem.solution == worked_solution("add", "2")
    assert problem.source == "gsm8k"


def test_the_source_of_a_problem_is_the_data_set_unless_the_row_names_another(tmp_path):
    rows = [{"question": f"{n} + 1?", "answer": n + 1, "origin": origin} for n, origin in enumerate(("math", "", None))]
    name = write_jsonl(tmp_path / "set.jsonl", *rows)
    config = DataConfig(name=name, fields=FieldNames(source="origin"))
    assert [problem.source for problem in load_problems(config, "train")] == ["math", name, name]
    assert {problem.source for problem in load_problems(DataConfig(name=name), "train")} == {name}


def test_hash_answers_lose_calculator_marks_and_keep_commas(tmp_path):
    row = {"question": "Pay?", "answer": "She earns 10*200 = $<<10*200=2000>>2000.\n#### 2,000 "}
    name = write_jsonl(tmp_path / "a.jsonl", row)
    [problem] = load_problems(DataConfig(name=name, answer_format="hash", system_prompt=""), "train")
    assert problem.gold == "2,000"
    assert problem.solution == worked_solution("She earns 10*200 = $2000.", "2,000")
    assert problem.prompt == ({"role": "user", "content": "Pay?"},)


def test_rows_without_question_or_gold_are_left_out_and_counted(tmp_path, caplog):
    rows: list[dict] = [{"question": "a?", "answer": "#### 1"}, {"question": "", "answer": "#### 1"}]
    rows += [{"question": "b?", "answer": "no mark"}, {"question": "c?", "answer": None}]
    config = DataConfig(name=write_jsonl(tmp_path / "a.jsonl", *rows), answer_format="hash")
    assert [problem.question for problem in load_problems(config, "train")] == ["a?"]
    assert "left out 3 of 4 rows" in caplog.text
    with pytest.raises(DataError, match="has none of train"):
        load_problems(config.model_copy(update={"train_split": "train[1:]"}), "train")


def test_ids_depend_on_the_question_alone_and_repeats_are_numbered(tmp_path):
    rows = [{"question": "x?", "answer": "1"}, {"question": "y?", "answer": "2"}, {"question": "x?", "answer": "1"}]
    config = DataConfig(name=write_jsonl(tmp_path / "a.jsonl", *rows))
    first, other, repeat = [problem.id for problem in load_problems(config, "train")]
    assert first == "train-074ab17800f4"  # printf 'x?' | sha256sum
    assert repeat == f"{first}-2"
    assert load_problems(config.model_copy(update={"train_split": "train[1:2]"}), "train")[0].id == other


@given(names=st.lists(st.sampled_from(["a", "b", "a-2", "a-3", "a-2-2"]), max_size=12))
@examples()
def test_names_are_unique_and_a_new_name_stays(names):
    taken: dict[str, int] = {}
    unique = [unique_name(name, taken) for name in names]
    assert len(set(unique)) == len(names)
    for place, name in enumerate(names):
        assert unique[place].startswith(name)
        assert unique[place] == name or name in unique[:place]


def test_many_rows_with_the_same_name_are_numbered_in_time():
    taken: dict[str, int] = {}
    assert [unique_name("a", taken) for _ in range(50_000)][-1] == "a-50000"  # quadratic time would take minutes


# Plain-text prompts ------------------------------------------------------------------------------


def test_the_metamath_prompt_is_the_published_one(tmp_path):
    [problem, _] = load_problems(metamath(write_jsonl(tmp_path / "a.jsonl", LETTER, SHOP)), "train")
    assert problem.prompt_text == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWhich graph is $\\{x\\}$?\n\n### Response: Let's think step by step."
    )
    assert (problem.solution, problem.gold) == (LETTER["response"], r"\text{D}")
    assert problem.question == LETTER["query"]


def test_without_a_template_the_solution_has_tags(tmp_path):
    [problem] = load_problems(metamath(write_jsonl(tmp_path / "a.jsonl", SHOP), prompt_template=None), "train")
    assert problem.prompt_text is None
    assert problem.solution == worked_solution("So it is 24 + 8 = 32.", "32")


def test_the_gsm8k_prompt_has_question_and_answer_and_keeps_the_solution_as_it_is(tmp_path):
    config = DataConfig(
        name=write_jsonl(tmp_path / "a.jsonl", CLIPS), answer_format="hash", prompt_template="gsm8k", system_prompt=""
    )
    [problem] = load_problems(config, "train")
    assert str(problem.prompt_text).endswith("\n\n### Question:\nHow many clips?\n\n### Answer:\n")
    assert (problem.solution, problem.gold) == (CLIPS["answer"], "72")


@pytest.mark.parametrize(
    ("template", "fields", "prompt", "solution"),
    [
        ("Q: {q}\nA: ", {}, "Q: 1 {q}?\nA: ", "2"),  # a field's own braces have no meaning
        ("{q}", {}, "1 {q}?", "2"),
        ("{q}{a}", {}, "1 {q}?", "2"),
        ("{q} {{x}} ({hint}) {how}", {}, "1 {q}? {x} (easy) ", "add"),
        ("Q: {q}\nA: ", {"solution": "how"}, "Q: 1 {q}?\nA: ", "add"),
        ("{q} {a b.c}: {how}", {}, "1 {q}? odd: ", "add"),
    ],
)
def test_a_text_with_fields_is_a_template(tmp_path, template, fields, prompt, solution):
    row = {"q": "1 {q}?", "a": 2, "how": "add", "hint": "easy", "a b.c": "odd"}
    config = DataConfig(
        name=write_jsonl(tmp_path / "a.jsonl", row),
        fields=FieldNames(question="q", answer="a", **fields),
        prompt_template=template,
    )
    [problem] = load_problems(config, "train")
    assert (problem.prompt_text, problem.solution, problem.gold) == (prompt, solution, "2")


def test_embedded_problems_without_a_worked_solution_stay_without_one():
    problems = load_problems(DataConfig(prompt_template="Q: {question}\nA: "), "train")
    assert problems[0].prompt_text == f"Q: {problems[0].question}\nA: "
    assert sum(problem.solution is not None for problem in problems) == 400 + 400 + 40 + 20 + 10


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{question} {hint}{answer}", DataError, r"no field hint: it has question, answer\. .*prompt_template"),
        ("{question} {how}", DataError, r"no field how: it has question, answer\. .*prompt_template"),
        ("metamath", ConfigError, r"must hold the question, \{question\}, got fields query"),
        ("Q: {answer}", ConfigError, r"must hold the question, \{question\}, got fields none"),
        ("{question}{answer}\n", ConfigError, r"must not give the answer away, got \{answer\} inside it.*`\|-`"),
        ("{answer}{question}", ConfigError, r"must not give the answer away"),
    ],
)
def test_a_template_that_does_not_fit_the_data_is_a_one_line_error(tmp_path, template, error, message):
    config = DataConfig(name=write_jsonl(tmp_path / "train.jsonl", CLIPS), prompt_template=template)
    with pytest.raises(error, match=message) as caught:
        load_problems(config, "train")
    assert "\n" not in str(caught.value)


def test_a_question_alone_is_asked_like_those_of_the_data():
    assert question_alone("1 + 1?", metamath("x")).prompt_text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n1 + 1?\n\n### Response: Let's think step by step."
    )
    chat = question_alone("1 + 1?", DataConfig(system_prompt="Be brief."))
    assert chat.prompt_text is None
    assert chat.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    with pytest.raises(ConfigError, match="must name question alone to ask a question, got hint"):
        question_alone("1 + 1?", DataConfig(prompt_template="{hint} {question}"))


def test_the_examples_of_the_data_page_are_configurations():
    page = (ROOT / "docs" / "data.md").read_text()
    [block] = [text for text in page.split("```yaml\n")[1:] if text.startswith("data:")]
    examples = [DataConfig.model_validate(item["data"]) for item in yaml.safe_load_all(block.partition("```")[0])]
    templates = [prompt_template(example) for example in examples]
    assert [template and template.fields for template in templates] == [["question"], ["query"], ["topic", "problem"]]
    assert [template and template.completion for template in templates] == ["answer", "response", "steps"]


# The real files ----------------------------------------------------------------------------------


@needs_shared_data
def test_every_gsm8k_solution_is_graded_right_against_its_gold():
    config = DataConfig(
        name=str(SHARED / "gsm8k"), answer_format="hash", prompt_template="gsm8k", train_split="train[:10%]"
    )
    train, held_out = load_problems(config, "train"), load_problems(config, "eval")
    assert (len(train), len(held_out)) == (747, 1319)
    assert "<<48/2=24>>" in str(train[0].solution)
    assert {grade(str(problem.solution), problem.gold).outcome for problem in train + held_out} == {"correct"}


@needs_shared_data
def test_every_metamathqa_response_is_graded_right_against_its_gold():
    problems = load_problems(metamath(str(SHARED / "metamathqa" / "train_sample.jsonl")), "train")
    assert [problem.gold for problem in problems][:4] == [r"\text{D}", "32", "1500", "15"] and len(problems) == 13
    assert {grade(str(problem.solution), problem.gold).outcome for problem in problems} == {"correct"}
