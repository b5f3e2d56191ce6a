import pytest

from pipeline.training.rollout_metrics import (
    RolloutSummary,
    chosen_ungraded,
    combined_metrics,
    sample_rows,
    ungraded_rows,
)
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId


def problem(id: str, level: str | None = "1") -> Problem:
    return Problem(
        id=id, prompt=({"role": "system", "content": "s"}, {"role": "user", "content": id}), gold="7", level=level
    )


def group(id: str, *rollouts: tuple) -> RolloutGroup:
    """Rollouts: (tokens, stop reason, correctness, format, outcome); total = correctness + 0.5 x format."""
    return RolloutGroup(
        problem=problem(id),
        prompt_token_ids=(1, 2),
        completions=tuple(Completion.of((3,) * n, (-0.5,) * n, f"{id}{n}", stop) for n, stop, *_ in rollouts),
        weight_id=WeightId(1, 4),
        rewards=tuple(
            RewardBreakdown(right + 0.5 * form, {"correctness": right, "format": form}, outcome)
            for _, _, right, form, outcome in rollouts
        ),
    )


GROUPS = [
    group("a", (2, "stop", 1.0, 1.0, "correct"), (8, "length", 0.0, 0.0, "unparsed")),
    group("b", (3, "stop", 0.0, 1.0, "incorrect"), (4, "stop", 0.0, 1.0, "timeout")),
    group("c", (5, "stop", 1.0, 1.0, "correct"), (2, "stop", 0.0, 0.0, "bad_gold")),
    group("d", (3, "stop", 1.0, 1.0, "correct"), (5, "stop", 1.0, 1.0, "correct")),
]


def metrics_of(replayed: list[bool], num_workers: int = 1) -> dict[str, float]:
    """Metrics of a step that learns at version 5 from what version 4 wrote."""
    size = len(GROUPS) // num_workers
    parts = [slice(start, start + size) for start in range(0, len(GROUPS), size)]
    return combined_metrics([RolloutSummary.of(GROUPS[part], replayed[part]) for part in parts], 5)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_rollout_metrics_by_hand(num_workers):
    # Totals 1.5, 0; 0.5, 0.5; 1.5, 0; 1.5, 1.5: sum 7, squares 4 x 2.25 + 2 x 0.25 = 9.5.
    variance = 9.5 / 8 - (7 / 8) ** 2
    assert metrics_of([False] * 4, num_workers) == pytest.approx(
        {
            "reward_mean": 0.875,
            "reward_std": variance**0.5,
            "reward/correctness": 0.5,
            "reward/format": 0.75,
            "correct_frac": 0.5,
            "unparsed_frac": 0.125,
            "timeout_frac": 0.125,
            "bad_gold_frac": 0.125,
            "zero_variance_frac": 0.75,  # b and d, and c, whose other completion was not graded
            "completion_length_min": 2,
            "completion_length_mean": 4.0,  # 32 / 8
            "completion_length_max": 8,
            "truncated_frac": 0.125,
            "num_rollout_tokens": 32,
            "policy_version": 4,
            "staleness": 1,
            "staleness_mean": 1.0,
        }
    )


def test_rewards_of_new_and_of_replayed_problems_are_told_apart():
    apart = metrics_of([False, True, True, False], 2)
    # a and d: 1.5, 0, 1.5, 1.5; b and c: 0.5, 0.5, 1.5, 0
    assert [apart[name] for name in ("num_replayed", "reward_mean_new", "reward_mean_replayed")] == [2, 1.125, 0.625]
    assert "reward_mean_new" not in metrics_of([True] * 4, 2)


def test_sample_rows_pair_completions_with_their_rewards():
    rows = sample_rows(GROUPS[:2], step=10, stage="rl")
    assert len(rows) == 4
    assert rows[1] == {
        "step": 10,
        "stage": "rl",
        "problem_id": "a",
        "level": "1",
        "question": "a",
        "gold": "7",
        "completion": "a8",
        "reward": 0.0,
        "parts": {"correctness": 0.0, "format": 0.0},
        "outcome": "unparsed",
        "stop_reason": "length",
    }
    assert [row["completion"] for row in rows] == ["a2", "a8", "b3", "b4"]


def test_ungraded_rows_take_outcomes_in_turn_and_a_problem_once():
    late, bad = (1, "stop", 0.0, 0.0, "timeout"), (2, "stop", 0.0, 0.0, "bad_gold")
    groups = [group("a", bad, bad), group("b", bad, bad), group("c", bad), group("d", late, late), group("e", bad)]
    rows = chosen_ungraded(ungraded_rows([*groups, *GROUPS[3:]], step=10, stage="rl"))
    assert [row["completion"] for row in rows] == ["d1", "a2", "b2", "c2"]  # id and number of tokens
    assert rows[0] == sample_rows(groups, 10, "rl")[5]
    assert ungraded_rows(GROUPS[3:], 10, "rl") == []


def test_a_group_without_its_rewards_is_our_bug():
    with pytest.raises(ValueError, match="shorter"):
        sample_rows([RolloutGroup(problem("a"), (1,), GROUPS[0].completions, WeightId(1, 0))], 1, "rl")
