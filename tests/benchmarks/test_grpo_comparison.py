"""The pure parts of the GRPO and rollout benchmarks: work, order, ratios."""

import json
from types import SimpleNamespace

import pytest

from pipeline.config import validate_config
from pipeline.curriculum.mixture import mix
from pipeline.data import load_problems
from tests.benchmarks import rollouts
from tests.benchmarks.grpo import Measured, ratios
from tests.benchmarks.grpo_work import alternating_rewards, data_config, in_training_order, recipe, write_problems
from tests.support.data import write_jsonl


@pytest.fixture
def gsm8k(tmp_path):
    rows = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(20)]
    write_jsonl(tmp_path / "gsm8k/train.jsonl", *rows)
    return tmp_path / "gsm8k"


def test_the_problems_are_exactly_those_of_the_steps(tmp_path, gsm8k):
    assert write_problems(tmp_path / "work", gsm8k, num_steps=3) == "GSM8K"
    problems = load_problems(data_config(tmp_path / "work"), "train")
    assert [problem.gold for problem in problems] == [str(2 * n) for n in range(12)]  # 3 steps x 4 prompts
    assert str(problems[0].prompt_text).endswith("### Question:\nWhat is 0 + 0?\n\n### Answer:\n")


def test_without_gsm8k_stories_take_its_place_and_the_name_says_so(tmp_path):
    name = write_problems(tmp_path / "work", tmp_path / "nowhere", num_steps=2)
    assert name.startswith("embedded stories")
    assert len(load_problems(data_config(tmp_path / "work"), "train")) == 8


def test_trl_takes_the_problems_in_the_order_of_our_steps():
    problems = list("abcdefgh")
    ours = mix(problems, [], 0.0, 8, 0, "grpo")  # as stage_examples mixes them
    assert in_training_order(problems) == ours.batch(4, 0) + ours.batch(4, 1)


def test_every_completion_has_an_advantage():
    assert alternating_rewards(8) == [0, 1, 0, 1, 0, 1, 0, 1]  # mean 0.5: none is 0 after centering


def test_our_job_is_valid_and_of_the_size_that_is_compared(tmp_path):
    config = validate_config(recipe(tmp_path, tmp_path, tmp_path, num_steps=4))
    assert (config.grpo.batch_size, config.grpo.num_generations, config.grpo.num_steps) == (4, 8, 4)
    assert (config.rollout.max_completion_length, config.grpo.beta, config.grpo.mu) == (128, 0, 1)


def test_staleness_is_passed_to_the_engines(tmp_path):
    assert recipe(tmp_path, tmp_path, tmp_path, 4, staleness=1)["rollout"]["max_staleness"] == 1


def test_ratios_are_those_of_medians_over_all_rounds_and_of_peaks():
    ours = [Measured([10.0, 12.0, 30.0], [4096.0], [], 6000.0), Measured([11.0, 9.0], [4096.0], [], 6600.0)]
    theirs = [Measured([44.0], [4096.0], [], 6600.0), Measured([40.0, 60.0], [4096.0], [], 6000.0)]
    assert ratios(ours, theirs) == [
        "median s per step: Gradus 11.0, TRL 44.0",  # of 9, 10, 11, 12, 30 and of 40, 44, 60
        "memory ratio: 1.00",  # 6600 to 6600
        "ratio: 4.00",
    ]


def test_lengths_vary_by_ten_and_are_the_same_every_time():
    lengths = rollouts.draw_lengths(128)
    assert (len(lengths), min(lengths), max(lengths)) == (128, 16, 300)
    assert lengths == rollouts.draw_lengths(128)
    middle = (16 * 300) ** 0.5  # 69.3: log-uniform lengths are as often below as above
    assert 48 <= sum(length < middle for length in lengths) <= 80


def test_requests_end_at_the_length_of_their_seed():
    added = []
    engine = SimpleNamespace(add_request=lambda *given, **named: added.append((given, named)))
    rollouts.end_at(engine, {5: 42})
    params = SimpleNamespace(seed=5, max_tokens=300, ignore_eos=False, stop_token_ids=[2])
    params.clone = lambda: SimpleNamespace(**vars(params))
    engine.add_request("a", "prompt", params, priority=1)
    ((_, prompt, given), named) = added[0]
    assert (prompt, named) == ("prompt", {"priority": 1})
    assert (given.max_tokens, given.ignore_eos, given.stop_token_ids) == (42, True, [])
    assert params.max_tokens == 300


def test_our_path_is_compared_with_the_faster_way_of_bare_vllm():
    seconds = {
        rollouts.OLD: [60.0, 50.0, 40.0],
        rollouts.NEW: [25.0],
        rollouts.BARE[0]: [30.0],
        rollouts.BARE[1]: [24.0],
    }
    assert rollouts.ratios(seconds) == ["speedup over chunks of 4: 2.00", "of bare vLLM: 0.96"]


def test_the_endless_model_differs_in_its_end_of_sequence_alone(tmp_path, monkeypatch):
    from tests.benchmarks import grpo_work

    source = tmp_path / "source"
    source.mkdir()
    for name, settings in {
        "config": {"eos_token_id": 2, "a": 1},
        "generation_config": {},
        "tokenizer_config": {},
    }.items():
        (source / f"{name}.json").write_text(json.dumps(settings))
    (source / "chat_template.jinja").write_text("ends turns")
    monkeypatch.setattr(grpo_work, "build_embedded_model", lambda: source)
    copy = grpo_work.endless_model(tmp_path)
    assert json.loads((copy / "config.json").read_text()) == {"eos_token_id": 16, "a": 1}
    assert json.loads((copy / "generation_config.json").read_text()) == {"eos_token_id": 16}
    assert json.loads((copy / "tokenizer_config.json").read_text()) == {"eos_token": "<empty_output>"}
    assert not (copy / "chat_template.jinja").exists()
