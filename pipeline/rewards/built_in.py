"""The rewards of solved problems: a right answer, and the tags around it."""

from collections.abc import Sequence

from pipeline.errors import RewardError
from pipeline.models.tokenizer import Tokenizer
from pipeline.rewards.registry import register
from pipeline.types import RolloutGroup
from pipeline.verifier import Verdict

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


@register("correctness")
def correctness(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """2.0 for exactly the gold answer, 1.5 for the same answer in another form, otherwise 0.0."""
    return [0.0 if verdict.outcome != "correct" else 2.0 if verdict.method == "exact" else 1.5 for verdict in verdicts]


@register("format")
def tag_format(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """0.2 for each of the four tags that appears."""
    return [0.2 * sum(tag in completion.text for tag in TAGS) for completion in group.completions]


def check_tags(tokenizer: Tokenizer, wanted_by: str) -> None:
    """Raise RewardError if the tags are special tokens of the model, which engines drop from texts."""
    decoded = tokenizer.decode(tokenizer.encode(" ".join(TAGS), add_special_tokens=False), skip_special_tokens=True)
    if dropped := [tag for tag in TAGS if tag not in decoded]:
        raise RewardError(
            f"{wanted_by} must be able to see {', '.join(dropped)} in completions, and this model's tokenizer drops "
            "special tokens from texts: nothing would ever have these tags. Use other rewards, or another model."
        )
