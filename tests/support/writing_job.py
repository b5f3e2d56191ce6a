"""A tiny job that writes problems, in one process without Ray or vLLM, and copies of it that are killed on the way.

A random model never writes a well-formed problem, so the first stage learns four of them by heart.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.driver import launch
from actors.handles import ActorHandles
from actors.learner.recorder import StepRecorder
from actors.learner.writing import ProblemWriter
from actors.reward import RewardWorker
from actors.rollout import Decoding, SyncReport
from actors.weights import PackedWeights
from jobs import questions_gen
from pipeline.config import Config, ModelConfig, validate_config
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import end_of_turn_id, load_tokenizer
from pipeline.rewards.registry import RewardContext, StatefulReward
from pipeline.types import Completion, PromptRequest, RolloutGroup, WeightId
from pipeline.verifier import Verdict
from tests.support.data import write_jsonl
from tests.support.in_process import run_without_ray
from tests.support.jobs import only_run
from tests.support.loops import LocalHandle, LocalStore
from tests.support.models import letter_reward
from tests.support.recipes import save_recipe, tiny_settings

NUM_WRITTEN = 34
WRITING = "writing"
"""The moment between two chunks of the problems that a stage writes."""


class Rising(StatefulReward):
    """A reward of the user's own: the share of letters, times one more than the groups of all steps before."""

    def __init__(self, context: RewardContext) -> None:
        self.state = {"num_groups": 0}

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [(1 + self.state["num_groups"]) * value for value in letter_reward(group, verdicts)]

    def next_state(self, groups: Sequence[RolloutGroup]) -> dict[str, int]:
        return {"num_groups": self.state["num_groups"] + len(groups)}


class StandInEngine:
    """Stands for a RolloutWorker: samples with the learner's own library. All prompts have one length."""

    def __init__(self, model: ModelConfig, pull: Callable[[WeightId], PackedWeights]) -> None:
        from transformers import AutoModelForCausalLM

        path = resolve_model(model)
        self._model = AutoModelForCausalLM.from_pretrained(path).eval()
        self._tokenizer = load_tokenizer(path, model, chat=True)
        self._stop, self._pull = end_of_turn_id(self._tokenizer), pull
        self._weight_id: WeightId | None = None

    def sync(self, weight_id: WeightId) -> SyncReport:
        if weight_id != self._weight_id:
            weights = self._pull(weight_id)
            self._model.load_state_dict(dict(weights.tensors()), strict=False)
            self._weight_id, self._report = weight_id, SyncReport(weights.checksum, None)
        return self._report

    def generate(
        self, weight_id: WeightId, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        self.sync(weight_id)
        prompts = [list(request.prompt_token_ids) for request in requests for _ in request.seeds]
        seeds = [seed for request in requests for seed in request.seeds]
        done = iter(self._complete(prompts, seeds, decoding))
        return [tuple(next(done) for _ in request.seeds) for request in requests]

    def _complete(self, prompts: list[list[int]], seeds: list[int], decoding: Decoding) -> list[Completion]:
        import torch

        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        tokens: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        ids, cache = torch.tensor(prompts), None
        with torch.inference_mode():
            for _ in range(decoding.max_completion_length):
                output = self._model(ids, past_key_values=cache, use_cache=True)
                cache, last = output.past_key_values, output.logits[:, -1].float().log_softmax(-1)
                rows = [_sample(row, decoding.temperature, g) for row, g in zip(last, generators, strict=True)]
                for index, token in enumerate(rows):
                    if self._stop not in tokens[index][-1:]:
                        tokens[index].append(token)
                        logprobs[index].append(last[index, token].item())
                if all(own[-1] == self._stop for own in tokens):
                    break
                ids = torch.tensor([own[-1:] for own in tokens])
        return [self._completion(own, probabilities) for own, probabilities in zip(tokens, logprobs, strict=True)]

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        is_whole = tokens[-1] == self._stop
        return Completion(tuple(tokens), tuple(logprobs), text, "stop" if is_whole else "length")


def _sample(logprobs: Any, temperature: float, generator: Any) -> int:
    import torch

    if temperature == 0:
        return int(logprobs.argmax())
    return int(torch.multinomial((logprobs / temperature).softmax(-1), 1, generator=generator))


def writing_recipe(model: Path, directory: Path) -> Path:
    """SFT on tasks with examples, GRPO that ends by writing problems, SFT on those that are kept."""
    rows = [
        {"question": f"{name} or {thing}?", "answer": f"{index}", "steps": f"{index}", "level": str(index % 2 + 1)}
        for index, (name, thing) in enumerate([("ab", "cd"), ("ef", "gh"), ("ij", "kl"), ("mn", "op")], 2)
    ]
    for split in ("train", "test"):
        write_jsonl(directory / f"{split}.jsonl", *rows)
    settings = tiny_settings(
        model,
        directory,
        curriculum=None,
        stages=[
            {"name": "basic", "kind": "sft", "balance_levels": True},
            {"name": "quality", "kind": "grpo", "balance_levels": True, "write": {"num_problems": NUM_WRITTEN}},
            {"name": "final", "kind": "sft", "written_frac": 0.5, "settings": {"max_steps": 4}},
        ],
        questions={"keep": {"near_similarity": 1.0, "compare_with_data": False}},
        reward={
            "functions": [
                {"name": "well_formed", "gate": True},
                {"name": "novel"},
                {"name": "tests.support.writing_job:Rising"},
            ],
            "normalize": "zscore",
            "zscore": {"warmup": 4, "history": 20},
        },
        checkpoint={"every_steps": 3},
        eval={"problems_per_level": 1, "max_completion_length": 80, "at_start": False, "every_steps": 15}
        | {"metric_for_best_model": "quality"},
        output={"save_final_model": False},
    )
    settings["data"] = {
        "name": str(directory),
        "fields": {"level": "level", "solution": "steps"},
        "write": {"prompts": {"new": "W{level}"}, "system_prompt": ""},
    }
    settings["sft"] |= {"max_steps": 45, "num_train_epochs": 100, "learning_rate": 1e-2, "lr_schedule": "cosine"}
    settings["grpo"] |= {"num_steps": 4, "mu": 1, "beta": 0.0, "learning_rate": 1e-4}
    settings["rollout"] |= {"max_completion_length": 80}
    return save_recipe(directory, settings)


def run_writing_job(config: Config, *arguments: object) -> None:
    """Run ``jobs/questions_gen.py`` with a stand-in engine and a real grader."""
    store = LocalStore()
    grader = RewardWorker(config)
    try:
        actors = ActorHandles(
            (LocalHandle(StandInEngine(config.model, store.pull)),), (LocalHandle(grader),), LocalHandle(store)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "write_report", lambda path: None)
            run_without_ray(actors, questions_gen.main, *arguments)
    finally:
        grader.close()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at(moment: str, patch: pytest.MonkeyPatch) -> None:
    """Arrange the end of this process, once the metrics of a step are written or while problems are."""
    step, write, generate = StepRecorder.step, ProblemWriter.write, StandInEngine.generate

    def step_and_die(self: StepRecorder, progress: Any, *arguments: Any) -> None:
        step(self, progress, *arguments)
        if str(progress.step) == moment:
            _kill()

    def write_and_die(self: ProblemWriter, tasks: Any, purpose: str, teacher: str | None = None) -> Any:
        if moment == WRITING and purpose.startswith("write "):
            calls = iter(range(2))

            def generate_and_die(engine: StandInEngine, *arguments: Any) -> Any:
                return generate(engine, *arguments) if next(calls) == 0 else _kill()

            patch.setattr(StandInEngine, "generate", generate_and_die)
        return write(self, tasks, purpose, teacher)

    patch.setattr(StepRecorder, "step", step_and_die)
    patch.setattr(ProblemWriter, "write", write_and_die)


def forked(moment: str, config: Config, *arguments: object) -> int:
    """Run the job in a copy of this process, which has imported everything. Returns its exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with pytest.MonkeyPatch.context() as patch:
            _killed_at(moment, patch)
            run_writing_job(config, *arguments)
        code = 0
    finally:
        os._exit(code)


def main(recipe: Path, root: Path, *moments: str) -> list[int]:
    """Run the job undisturbed, and another one that is killed at each of these moments and resumed. Returns the exit
    codes of all processes."""
    config = validate_config(yaml.safe_load(recipe.read_text()))
    new = ("--config", recipe)
    codes = [forked("", config, *new, f"output.root={root / 'undisturbed'}")]
    codes.append(forked(moments[0], config, *new, f"output.root={root / 'disturbed'}"))
    run = only_run(root / "disturbed")
    return codes + [forked(moment, config, "--resume", run) for moment in (*moments[1:], "")]


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
