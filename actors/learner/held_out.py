"""Greedy accuracy on held-out problems, on the engines that are already up."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from actors.driver.plan import EVAL_CHUNK
from actors.rollout import Decoding
from pipeline.evaluation.held_out import accuracy_by_level
from pipeline.types import Completion, Problem, PromptRequest, WeightId
from pipeline.verifier import extract, grade, last_number


def evaluate(
    rollout_workers: Sequence[Any],
    weight_id: WeightId,
    problems: Sequence[Problem],
    encode: Callable[[Problem], tuple[int, ...]],
    max_completion_length: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the summary by level, and a row per problem."""
    decoding = Decoding(temperature=0.0, max_completion_length=max_completion_length)
    chunks = [problems[start : start + EVAL_CHUNK] for start in range(0, len(problems), EVAL_CHUNK)]
    pending = [
        rollout_workers[index % len(rollout_workers)].generate.remote(
            weight_id, [PromptRequest(encode(problem), (0,)) for problem in chunk], decoding
        )
        for index, chunk in enumerate(chunks)
    ]
    rows = [
        _row(problem, completion)
        for chunk, ref in zip(chunks, pending, strict=True)
        for problem, (completion,) in zip(chunk, ray.get(ref), strict=True)
    ]
    return accuracy_by_level(rows), rows


def _row(problem: Problem, completion: Completion) -> dict[str, Any]:
    verdict = grade(completion.text, problem.gold)
    number = last_number(completion.text)
    marked = "</answer>" in completion.text
    if problem.prompt_text is not None:  # nobody asked for tags: "#### 5", "The answer is: 5" or a box will do
        marked = extract(completion.text, fallback=False) is not None
    return {
        "problem_id": problem.id,
        "level": problem.level or "all",
        "question": problem.question,
        "gold": problem.gold,
        "completion": completion.text,
        "outcome": verdict.outcome,
        "tagged": verdict.outcome == "correct" and marked,
        "last_number": number is not None and grade(f"<answer>{number}</answer>", problem.gold).outcome == "correct",
        "num_tokens": len(completion.token_ids),
        "truncated": completion.stop_reason == "length",
    }
