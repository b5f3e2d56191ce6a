"""Problems that are written for evaluations and at the end of a stage, with a stand-in for engines and graders."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.learner.writing import ProblemWriter
from pipeline.config import Config, validate_config
from pipeline.curriculum.examples import Example
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId, WritingTask
from tests.support.models import save_tiny_model, tiny_tokenizer
from tests.support.questions import completion_text

TASK = Problem("p0", ({"role": "user", "content": "Write a problem."},), "", level="1", writing=WritingTask("new"))
LONG = replace(TASK, id="p1", prompt=({"role": "user", "content": "Write " + "a very long problem " * 20},))


class StandInEngines:
    """Writes one and the same problem for every task, and remembers what it was asked."""

    weight_id = WeightId(1, 7)

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Example], Sequence[tuple[int, ...]], Any, str | None]] = []

    def write(
        self, tasks: Sequence[Example], seeds: Sequence[tuple[int, ...]], state: Any, teacher: str | None
    ) -> list[RolloutGroup]:
        self.asked.append((tasks, seeds, state, teacher))
        text = completion_text("What is 5 * 11?", "5 * 11 = 55", "55")
        reward = RewardBreakdown(1.0, {"well_formed": 1.0}, "correct")
        completion = Completion.of((1,), (-0.5,), text, "stop")
        return [RolloutGroup(each.problem, (1,), (completion,), self.weight_id, (reward,)) for each in tasks]


@pytest.fixture
def engines() -> StandInEngines:
    return StandInEngines()


def config(model: object, **questions: Any) -> Config:
    settings = {
        "model": {"name": str(model), "dtype": "float32"},
        "stages": [{"name": "rl", "kind": "grpo"}],
        "data": {"write": {}},
        "rollout": {"max_prompt_length": 200},
        "reward": {"functions": [{"name": "well_formed"}], "normalize": "zscore"},
        "questions": questions,
    }
    return validate_config(settings)


def writer(settings: Config, engines: StandInEngines) -> ProblemWriter:
    return ProblemWriter(settings, tiny_tokenizer(), engines)  # type: ignore[arg-type]


def test_every_evaluation_scores_what_is_written_as_the_first_step_does(tiny_model, engines):
    """Without a history of rewards, so that novelty does not fall only because more was written before."""
    rows = writer(config(tiny_model), engines).write([TASK], "eval")
    ((_, _, state, teacher),) = engines.asked
    assert state == {} and teacher is None
    (row,) = rows
    assert (row["statement"], row["answer"], row["quality"]) == ("What is 5 * 11?", "55", 1.0)
    assert row["model"] == f"{tiny_model}, step 7"


def test_seeds_depend_on_the_purpose_and_too_long_tasks_are_left_out(tiny_model, engines):
    problems = writer(config(tiny_model), engines)
    rows = [problems.write([TASK, LONG], purpose) for purpose in ("eval", "eval", "write rl")]
    assert [len(each) for each in rows] == [1, 1, 1]
    first, again, other = (each[0]["seed"] for each in rows)
    assert first == again != other


def test_a_teacher_reads_the_tasks_by_its_own_tokenizer_and_is_named(tiny_model, tmp_path, engines):
    teacher = save_tiny_model(tmp_path / "teacher")
    file = teacher / "chat_template.jinja"
    assert file.is_file()
    file.write_text("{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    problems = writer(config(tiny_model, teacher=str(teacher)), engines)
    (own,), (taught,) = problems.write([TASK], "write"), problems.write([TASK], "write", str(teacher))
    prompts = [bytes(token for token in tasks[0].tokens.prompt if token < 256) for tasks, *_ in engines.asked]
    assert len(prompts[1]) == len("[Write a problem.]") < len(prompts[0])
    assert [asked[3] for asked in engines.asked] == [None, str(teacher)]
    assert own["model"] == f"{tiny_model}, step 7" and taught["model"] == str(teacher)
    assert json.dumps(taught)  # rows are saved
