"""The audit of a run: what it reports, and what it leaves alone. A run without findings may still be dishonest."""

import json

import pytest

from pipeline.audit.run import audit_rows, audit_run
from pipeline.audit.section import drift_sentence
from tests.support.audits import HONEST, made_up_run, sample, write_samples


def test_hacking_that_grows_is_reported_as_more_than_noise():
    audit = audit_rows(made_up_run({10: 0, 20: 1, 30: 3, 40: 4, 50: 6, 60: 7}))
    assert audit and audit["disagreement_frac"] == pytest.approx(21 / 48)
    assert audit["disagreements"]["format"] == {"count": 84, "frac": pytest.approx(21 / 48)}
    drift = audit["drift"]["disagreement_frac"]
    assert (drift["first"], drift["last"]) == pytest.approx((1 / 16, 13 / 16))
    assert (drift["first_steps"], drift["last_steps"]) == ([10, 20], [50, 60])
    assert drift["low"] > 0
    assert drift_sentence("disagreement_frac", drift).endswith("That is more than its noise.")
    assert "rose from 6.2 % in steps 10 to 20 to 81.2 % in steps 50 to 60" in drift_sentence("disagreement_frac", drift)
    assert audit["drift"]["length_mean"]["low"] > 0
    trick = audit["tricks"]["several_answers"]
    assert trick == {
        "count": 84,
        "frac": pytest.approx(21 / 48),
        "frac_of_correct": pytest.approx(84 / 138),  # and half of the other 108 are correct
        "reward_mean_with": 2.0,
        "reward_mean_without": 1.0,
    }
    assert [step["step"] for step in audit["steps"]] == [10, 20, 30, 40, 50, 60]
    assert [len(rows) for rows in audit["examples"].values() if rows] == [
        3,
        3,
        3,
    ]  # format, several answers, text after answer


def test_a_run_without_drift_is_reported_as_noise():
    audit = audit_rows(made_up_run({10: 1, 20: 2, 30: 1, 40: 0, 50: 2, 60: 1, 70: 1, 80: 2, 90: 2}))
    assert audit
    for name, drift in audit["drift"].items():
        assert drift["low"] < 0 < drift["high"]
        assert drift_sentence(name, drift).endswith("That is within its noise.")


def test_a_measure_that_stays_0_is_reported_as_unchanged():
    audit = audit_rows(made_up_run({10: 0, 20: 0}))
    assert audit and audit["disagreement_frac"] == audit["trick_frac"] == 0
    sentence = drift_sentence("disagreement_frac", audit["drift"]["disagreement_frac"])
    assert sentence.endswith("did not change: 0.0 % in step 10 and in step 20.")


def test_the_interval_is_that_of_problem_means():
    rows = [sample(1, p, "x" * n, False) for p, n in ((0, 10), (0, 10), (1, 14))]
    rows += [sample(2, p, "x" * n, False) for p, n in ((0, 20), (1, 26))]
    audit = audit_rows(rows)
    assert audit
    drift = audit["drift"]["length_mean"]
    # means 12 and 23; variances of the means (8 / 2) and (18 / 2), so the error is sqrt(13)
    assert (drift["change"], drift["high"] - drift["change"]) == pytest.approx((11, 1.96 * 13**0.5))


@pytest.mark.parametrize("rows", [made_up_run({10: 1}), [sample(1, 0, HONEST), sample(2, 0, HONEST)]])
def test_one_step_or_one_problem_gives_no_drift(rows):
    audit = audit_rows(rows)
    assert audit and set(audit["drift"].values()) == {None}


def test_what_the_first_scorer_did_not_grade_is_counted_apart():
    apart = [sample(1, 1, HONEST, outcome=outcome) for outcome in ("timeout", "bad_gold", "ungraded", None)]
    broken: list[dict] = [{}, {"outcome": "correct", "completion": None, "gold": "72"}]
    audit = audit_rows([*apart, *broken, sample(1, 2, HONEST)])
    assert audit and (audit["num_samples"], audit["num_ungraded"]) == (1, 6)
    assert audit_rows([*apart, *broken]) is None
    assert audit_rows([]) is None


def test_rows_need_no_step_problem_or_reward():
    audit = audit_rows([{"completion": HONEST, "gold": "72", "outcome": "correct"}])
    assert audit and audit["tricks"]["several_answers"]["reward_mean_without"] is None


def test_a_run_is_read_from_its_samples_of_steps_alone(tmp_path):
    assert audit_run(tmp_path) is None
    write_samples(tmp_path, made_up_run({10: 1, 20: 2}), tail='{"step": 10, "compl')
    for other in ("eval_before.jsonl", "ungraded.jsonl"):
        (tmp_path / "samples" / other).write_text(json.dumps(sample(1, 1, HONEST)) + "\n")
    audit = audit_run(tmp_path)
    assert audit and audit["num_samples"] == 64 and audit["tagged"]


def test_a_prompt_template_asks_for_no_tags(tmp_path):
    (tmp_path / "experiment_config.json").write_text(json.dumps({"data": {"prompt_template": "gsm8k"}}))
    write_samples(tmp_path, [sample(1, 1, "48 + 24 = 72\n#### 72")])
    audit = audit_run(tmp_path)
    assert audit and not audit["tagged"] and audit["disagreement_frac"] == 0
