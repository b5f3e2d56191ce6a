from typing import Any

import pytest
import torch

from actors.learner.held_out import HeldOutEvaluator
from actors.learner.ranks import Ranks
from pipeline.config import HeldOutConfig, SFTConfig
from pipeline.errors import DataError
from pipeline.training.batching import micro_batches
from pipeline.types import Completion, Problem
from tests.support.models import tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")


def problem(number: int, level: str, text: str = "?", solution: str | None = None) -> Problem:
    return Problem(f"p{number}", ({"role": "user", "content": text},), str(number), solution, level, prompt_text=text)


class Engines:
    """Answers every prompt with its number of tokens."""

    def answer(self, prompts: list[tuple[int, ...]], max_completion_length: int) -> list[Completion]:
        assert max_completion_length == 8
        return [Completion.of((1, 2), (), f"#### {len(prompt)}", "stop") for prompt in prompts]


def evaluator(problems: list[Problem], limit: int = 20, recorder: Any = None, **settings: Any) -> HeldOutEvaluator:
    config = HeldOutConfig(max_completion_length=8, **settings)
    return HeldOutEvaluator(problems, tiny_tokenizer(), config, limit, Engines(), Ranks(), None, recorder)  # type: ignore[arg-type]


def test_prompts_that_are_too_long_are_left_out(caplog):
    problems = [problem(1, "a", "12345"), problem(2, "a", "1" * 21)]
    assert evaluator(problems).problems() == problems[:1]
    assert "1 held-out problems are too long" in caplog.text
    with pytest.raises(DataError, match=r"must fit into rollout\.max_prompt_length=4"):
        evaluator(problems, limit=4)
    assert evaluator([]).problems() == []


def test_the_first_problems_of_every_level_are_used():
    problems = [problem(n, "ab"[n % 2]) for n in range(6)]
    held_out = evaluator(problems, problems_per_level=2)
    assert [p.id for p in held_out.problems()] == ["p0", "p1", "p2", "p3"]
    assert [p.id for p in held_out.problems(1)] == ["p0", "p1"]
    assert held_out.problems("all") == problems


class Recorder:
    def __init__(self) -> None:
        self.written: list[tuple[Any, ...]] = []

    def evaluation(self, *what: Any) -> None:
        self.written.append(what)

    def answers(self, *what: Any) -> None:
        self.written.append(what)


def test_answers_are_graded_one_row_per_problem():
    problems = [problem(1, "a", "x"), problem(2, "a", "xxx"), problem(3, "b", "yyy")]  # right: the gold is the length
    recorder = Recorder()
    held_out = evaluator(problems, recorder=recorder)
    held_out.evaluate("before", 7)
    ((name, step, summary, rows),) = recorder.written
    assert (name, step) == ("before", 7)
    assert [(row["problem_id"], row["outcome"]) for row in rows] == [
        ("p1", "correct"),
        ("p2", "incorrect"),
        ("p3", "correct"),
    ]
    assert {level: result["accuracy_tagged"] for level, result in summary["levels"].items()} == {"a": 0.5, "b": 1.0}
    assert held_out.answer_metrics("sft_step_000003") == {"eval_answer_accuracy": pytest.approx(2 / 3)}
    assert recorder.written[1] == ("sft_step_000003", rows)
    assert held_out.level_accuracy(["a"]) == 0.5
    with pytest.raises(DataError, match="must have held-out problems of"):
        held_out.level_accuracy(["c"])


def test_without_problems_nothing_is_evaluated():
    recorder = Recorder()
    evaluator([], recorder=recorder).evaluate("before", 0)
    assert recorder.written == []


def test_loss_on_held_out_solutions_is_the_mean_over_their_tokens():
    model, settings = tiny_llama(), SFTConfig(max_length=12)
    problems = [
        problem(1, "a", "1?", "one"),
        problem(2, "a", "2?", "two and two"),  # 2 + 12 tokens: too long
        problem(3, "a", "3?", "3"),
        problem(4, "a", "4?"),  # no solution
    ]
    metrics = evaluator(problems).solution_metrics(
        model, settings, lambda sequences: micro_batches(sequences, 64, CPU), torch.float32
    )
    tokens = [tiny_tokenizer().encode(text) for text in ("1?one<|im_end|>", "3?3<|im_end|>")]
    losses, num_tokens = 0.0, 0
    for row in tokens:
        logprobs = model(torch.tensor([row])).logits.log_softmax(-1)[0, 1:-1]
        losses -= logprobs.gather(1, torch.tensor(row[2:])[:, None]).sum().item()
        num_tokens += len(row) - 2
    assert num_tokens == 4 + 2
    assert metrics["eval_loss"] == pytest.approx(losses / num_tokens, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(torch.tensor(losses / num_tokens).exp().item(), rel=1e-5)
    assert 0 <= metrics["eval_token_accuracy"] <= 1
    unsolved = evaluator(problems[3:])
    assert unsolved.solution_metrics(model, settings, lambda _: [], torch.float32) == {}
