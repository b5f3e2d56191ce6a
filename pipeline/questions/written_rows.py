"""A row for each problem that was written: what it is, how it was rated, and where it comes from."""

from collections.abc import Iterator

from pipeline.config import RewardTerm
from pipeline.questions.filters import Row
from pipeline.questions.written import Malformed, read_written
from pipeline.rewards.totals import quality
from pipeline.types import PromptRequest, RolloutGroup


def written_rows(
    group: RolloutGroup, request: PromptRequest, prompt: str, model: str, terms: list[RewardTerm]
) -> Iterator[Row]:
    """The rows of a task, one for each completion, not judged yet.

    Args:
        group: scored.
        request: with the seeds of the completions.
        prompt: the text that the model saw.
        terms: of the reward.
    """
    problem, writing = group.problem, group.problem.writing
    assert writing is not None
    scored = zip(request.seeds, group.completions, group.rewards, strict=True)
    for sample, (seed, completion, breakdown) in enumerate(scored):
        yield {
            "id": f"{problem.id}-{sample}",
            "sample": sample,
            "kind": writing.kind,
            "topic": problem.type,
            "level": problem.level,
            **_parts_of(completion.text),
            "original": writing.original,
            "completion": completion.text,
            "parts": breakdown.parts,
            "quality": quality(breakdown.parts, terms),
            "is_kept": False,
            "reason": "",
            "model": model,
            "seed": seed,
            "prompt": prompt,
        }


def _parts_of(text: str) -> dict[str, str]:
    """Statement, solution and answer, empty in a text that is not well formed, with the reason as ``detail``."""
    written = read_written(text)
    if isinstance(written, Malformed):
        return {"statement": "", "solution": "", "answer": "", "detail": written.reason}
    return {
        "statement": written.statement,
        "solution": written.solution,
        "answer": written.answer,
        "detail": "",
    }
