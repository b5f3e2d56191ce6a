import json

import pytest
import yaml
from tokenizers.processors import TemplateProcessing

from pipeline.config import DataConfig, FieldNames, validate_config
from pipeline.data import check_data, load_problems
from pipeline.data.problems import prompt_template, question_alone
from pipeline.data.tokens import encode_problems
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.held_out import held_out_row as evaluation_row
from pipeline.models.tokenizer import prompt_token_ids
from pipeline.types import Completion, Problem
from pipeline.verifier import extract, grade
from tests.conftest import ROOT, SHARED
from tests.support.models import tiny_tokenizer

needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
MATH_FIELDS = FieldNames(question="query", answer="response")
CLIPS = {  # the first row of each file, shortened
    "question": "How many clips?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72",
}
LETTER = {"query": "Which graph is $\\{x\\}$?", "response": "It is $\\boxed{\\text{D}}$.The answer is: \\text{D}"}
SHOP = {"query": "How many lattes?", "response": "So it is 24 + 8 = 32.\n#### 32\nThe answer is: 32"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def metamath(name, **settings):
    settings = {"fields": MATH_FIELDS, "answer_format": "phrase", "prompt_template": "metamath", **settings}
    return DataConfig(name=name, **settings)


# Prompts -----------------------------------------------------------------------------------------


def test_the_metamath_prompt_is_the_published_one(tmp_path):
    [problem, _] = load_problems(metamath(write(tmp_path / "a.jsonl", LETTER, SHOP)), "train")
    assert problem.prompt_text == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWhich graph is $\\{x\\}$?\n\n### Response: Let's think step by step."
    )
    assert (problem.solution, problem.gold) == (LETTER["response"], r"\text{D}")
    assert problem.question == LETTER["query"]


def test_the_gsm8k_prompt_has_question_and_answer_and_keeps_the_solution_as_it_is(tmp_path):
    config = DataConfig(
        name=write(tmp_path / "a.jsonl", CLIPS), answer_format="hash", prompt_template="gsm8k", system_prompt=""
    )
    [problem] = load_problems(config, "train")
    assert str(problem.prompt_text).endswith("\n\n### Question:\nHow many clips?\n\n### Answer:\n")
    assert (problem.solution, problem.gold) == (CLIPS["answer"], "72")


@pytest.mark.parametrize(
    ("template", "fields", "prompt", "solution"),
    [
        ("Q: {q}\nA: ", {}, "Q: 1 {q}?\nA: ", "2"),  # what stands in a field is no template
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
        name=write(tmp_path / "a.jsonl", row),
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
    ("template", "message"),
    [
        ("metmath", r"must be metamath or gsm8k, or a text with a \{field\} of the data, got 'metmath'"),
        ("{q", r"must double braces that do not mark a \{field\}"),
        ("{}", r"only names of fields"),
        ("{q:>9}", r"only names of fields in braces, not \{q\.\.\.\}"),
        ("{q!r}", r"only names of fields"),
    ],
)
def test_what_is_no_template_is_refused_with_the_configuration(template, message):
    settings = {"data": {"prompt_template": template}, "stages": [{"name": "s", "kind": "sft"}]}
    with pytest.raises(ConfigError, match=rf"data\.prompt_template: .*{message}"):
        validate_config(settings)


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{question} {hint}{answer}", DataError, r"no field for \{hint\} of .*: it has question, answer\."),
        ("{question} {how}", DataError, r"no field for \{how\} of .*: it has question, answer\."),
        ("metamath", ConfigError, r"must hold the question, \{question\}, got fields query"),
        ("Q: {answer}", ConfigError, r"must hold the question, \{question\}, got fields none"),
        ("{question}{answer}\n", ConfigError, r"must not tell the answer, got \{answer\} inside it.*`\|-`"),
        ("{answer}{question}", ConfigError, r"must not tell the answer"),
    ],
)
def test_a_template_that_does_not_fit_the_data_is_a_one_line_error(tmp_path, template, error, message):
    config = DataConfig(name=write(tmp_path / "train.jsonl", CLIPS), prompt_template=template)
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


# Tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_bos", [False, True])
def test_a_learner_sees_the_plain_text_and_the_solution(has_bos):
    tokenizer = tiny_tokenizer()
    if has_bos:
        bos = tokenizer.convert_tokens_to_ids("<|im_start|>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
        )
    problem = Problem("p", ({"role": "user", "content": "1?"},), "1", "It is 1.", prompt_text="Q: 1?\nA: ")
    [tokens] = encode_problems(tokenizer, [problem]).to_pylist()
    assert tokenizer.decode(tokens["prompt"]) == "<|im_start|>" * has_bos + "Q: 1?\nA: "
    assert tokenizer.decode(tokens["completion"]) == "It is 1.<|im_end|>"
    assert prompt_token_ids(tokenizer, problem) == tuple(tokens["prompt"])
    chat = Problem("p", problem.prompt, "1")
    text = tokenizer.decode(prompt_token_ids(tokenizer, chat))
    assert text == "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"


# Splits ------------------------------------------------------------------------------------------


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
def test_splits_are_read_as_the_datasets_library_does(tmp_path, suffix, expression, expected):
    import pandas

    rows = [{"question": f"{index}?", "answer": str(index)} for index in range(20)]
    path = tmp_path / f"all{suffix}"
    if suffix == ".jsonl":
        write(path, *rows)
    else:
        pandas.DataFrame(rows).to_parquet(path)
    problems = load_problems(DataConfig(name=str(path), train_split=expression), "train")
    assert [int(problem.gold) for problem in problems] == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("train[:x]", r"has no split 'train\[:x\]': Unrecognized instruction format"),
        ("train[:0.5]", "Unrecognized instruction format"),
        ("train[:101%]", "Percent slice boundaries must be"),
        ("", "has no split ''"),
        ("train[20:]", r'"train\[20:\]" corresponds to no data'),
        ("dev[:5]", r"Unknown split \"dev\"\. Should be one of \['train'\]"),
    ],
)
def test_a_wrong_split_is_a_one_line_error(tmp_path, expression, message):
    config = DataConfig(name=write(tmp_path / "a.jsonl", CLIPS), train_split=expression)
    with pytest.raises(DataError, match=message) as caught:
        load_problems(config, "train")
    assert "\n" not in str(caught.value)


# Answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "gold", "reasoning"),
    [
        (SHOP["response"], "32", "So it is 24 + 8 = 32."),
        (LETTER["response"], r"\text{D}", r"It is $\boxed{\text{D}}$."),
        ("The answer is: 1. No.\nThe answer is: \\sqrt{5} ", r"\sqrt{5}", "The answer is: 1. No."),
        ("It is 5.\n#### 5", None, None),
        ("The answer is: ", None, None),
    ],
)
def test_gold_answers_follow_the_phrase(tmp_path, response, gold, reasoning):
    name = write(tmp_path / "a.jsonl", SHOP, {"query": "?", "response": response})
    problems = load_problems(metamath(name, prompt_template=None), "train")[1:]
    assert [problem.gold for problem in problems] == ([] if gold is None else [gold])
    if gold is not None:
        expected = f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{gold}\n</answer>"
        assert problems[0].solution == expected


@pytest.mark.parametrize(
    ("completion", "answer", "gold", "outcome"),
    [
        ("48 + 24 = <<48+24=72>>72 clips.\n#### 72", "72", "72", "correct"),
        ("So 7 x 300 = 2100.\n#### 2,100", "2,100", "2100", "correct"),
        ("#### 5\nThat is 5 of 20.", "5", "5", "correct"),
        ("#### 71\n", "71", "72", "incorrect"),
        ("So it is 32.\n#### 32\nThe answer is: 32", "32", "32", "correct"),
        ("So it is 32.\nThe answer is: 32", "32", "32", "correct"),
        ("It is 1/2 of 3.\nThe answer is: 1.5.", "1.5", "1.5", "correct"),
        ("The answer is: 3. The answer is: 4", "4", "3", "incorrect"),
        ("Thus $x$ is so.The answer is: \\sqrt{5}", "\\sqrt{5}", "\\sqrt{5}", "correct"),
        ("The answer is: \\frac{1}{2}", "\\frac{1}{2}", "\\frac{2}{4}", "correct"),
        ("The answer is: $18", "$18", "18", "correct"),
        ("She pays 18 dollars.\nThe answer is: ", None, "18", "correct"),  # by the last number
    ],
)
def test_completions_are_read_in_both_forms(completion, answer, gold, outcome):
    assert extract(completion, fallback=False) == answer
    assert grade(completion, gold).outcome == outcome


@pytest.mark.parametrize(
    ("prompt_text", "completion", "tagged"),
    [
        ("Q: ?\nA: ", "It is 5.\n#### 5", True),
        ("Q: ?\nA: ", "The answer is: 5", True),
        ("Q: ?\nA: ", "So it is 5", False),
        ("Q: ?\nA: ", "The answer is: 6", False),
        (None, "It is 5.\n#### 5", False),
        (None, "<answer>5</answer>", True),
    ],
)
def test_an_evaluation_asks_for_tags_of_chats_and_for_a_marked_answer_of_plain_text(prompt_text, completion, tagged):
    problem = Problem("p", ({"role": "user", "content": "?"},), "5", prompt_text=prompt_text)
    row = evaluation_row(problem, Completion((1,), (0.0,), completion, "stop"))
    assert row["tagged"] is tagged


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
    name = str(SHARED / "metamathqa" / "train_sample.jsonl")
    config = metamath(name, train_split="train[:10]", eval_split="train[10:12]")
    assert check_data(config).endswith("10 training and 2 held-out problems")
    problems = load_problems(metamath(name), "train")
    assert [problem.gold for problem in problems][:4] == [r"\text{D}", "32", "1500", "15"] and len(problems) == 13
    assert {grade(str(problem.solution), problem.gold).outcome for problem in problems} == {"correct"}
