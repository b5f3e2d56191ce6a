"""RolloutWorker as a plain class, on a stand-in for vLLM: what it does when the engine fails or answers wrongly."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors import rollout
from actors.engine_loop import Decoding, SyncReport
from actors.rollout import EngineError, RolloutWorker
from actors.weights import PackedWeights, Probe, pack_weights
from pipeline.config import ModelConfig, RolloutConfig
from pipeline.errors import ModelError
from pipeline.types import Completion, PromptRequest, WeightId
from tests.support.models import tiny_tokenizer

FIRST, SECOND = WeightId(1, 0), WeightId(1, 1)
REQUESTS = [PromptRequest((1, 2), (10, 11)), PromptRequest((3,), (12,))]


class StubEngine:
    """Stands for vLLM's LLM and for its engine. It completes every prompt with its first token, in one step.
    ``failure`` is raised, and ``lost`` answers are left out."""

    failure: Exception | None = None
    lost = 0
    logprob = -1.0
    """Of every token of a prompt."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.waiting: list[tuple[str, list[int]]] = []
        self.llm_engine, self.engine_core = self, SimpleNamespace(shutdown=lambda: None)

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: Any) -> str:
        self.asked.append(params)
        self.waiting.append((request_id, prompt["prompt_token_ids"]))
        return request_id

    def step(self) -> list[Any]:
        if self.failure:
            raise self.failure
        waiting, self.waiting = self.waiting[self.lost :], []
        return [self._answer(ids, request_id) for request_id, ids in waiting]

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def generate(self, prompts: list[dict[str, list[int]]], params: Any, use_tqdm: bool) -> list[Any]:
        return [self._answer(prompt["prompt_token_ids"]) for prompt in prompts]

    def _answer(self, ids: list[int], request_id: str = "") -> Any:
        said = {token: SimpleNamespace(logprob=self.logprob) for token in ids}
        completion = SimpleNamespace(token_ids=[ids[0]], logprobs=[said], text="", finish_reason="stop")
        return SimpleNamespace(
            request_id=request_id,
            prompt_token_ids=ids,
            outputs=[completion],
            finished=True,
            prompt_logprobs=[None, *[said] * (len(ids) - 1)],
        )

    def get_tokenizer(self) -> Any:
        tokenizer = tiny_tokenizer(eos="<eos>", special=["<|im_end|>"])
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        return tokenizer

    def reset_prefix_cache(self) -> None: ...

    def collective_rpc(self, method: str, kwargs: Any) -> None:
        list(kwargs["weights_iterator"])


def packed(value: float, probe: Probe | None = None) -> PackedWeights:
    return pack_weights([("w", torch.float32, (1,))], [("w", torch.tensor([value]))], probe)


@pytest.fixture
def parts(monkeypatch) -> Iterator[SimpleNamespace]:
    sampling = SimpleNamespace(SamplingParams=SimpleNamespace, RequestOutputKind=SimpleNamespace(FINAL_ONLY="final"))
    monkeypatch.setitem(sys.modules, "vllm", sampling)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
    engine, ended = StubEngine(), []
    monkeypatch.setattr(rollout, "_start_engine", lambda *_: engine)
    weights = {FIRST: packed(1.0), SECOND: packed(2.0)}

    def end_process() -> None:
        ended.append(True)

    def pull(weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
        return weight_id, weights[weight_id]

    worker = RolloutWorker(RolloutConfig(), ModelConfig(), 16, 4, pull, end_process)
    yield SimpleNamespace(worker=worker, engine=engine, ended=ended, weights=weights)
    worker.close()


def generate(parts: SimpleNamespace) -> list[tuple[Completion, ...]]:
    return asyncio.run(parts.worker.generate(FIRST, REQUESTS, Decoding(1.0)))


def sync(parts: SimpleNamespace, weight_id: WeightId | None) -> Any:
    return asyncio.run(parts.worker.sync(weight_id))


def test_every_seed_of_every_prompt_gets_its_completion(parts):
    answers = generate(parts)
    assert [[tuple(c.token_ids) for c in group] for group in answers] == [[(1,), (1,)], [(3,)]]
    assert not parts.ended


def test_an_engine_stops_where_the_template_ends_a_turn(parts):
    generate(parts)
    end_of_turn = parts.engine.get_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert [params.stop_token_ids for params in parts.engine.asked] == [[end_of_turn]] * 3


def test_an_exception_inside_the_engine_ends_the_process_after_a_log_line(parts, caplog, capsys):
    parts.engine.failure = RuntimeError("no blocks")
    with pytest.raises(EngineError, match="RuntimeError: no blocks"):
        generate(parts)
    assert parts.ended == [True]
    assert "the engine failed" in caplog.text and "Traceback" in caplog.text
    assert "an engine failed, so its process ends and is replaced: RuntimeError: no blocks" in capsys.readouterr().out


def test_an_answer_that_is_lost_ends_the_process(parts):
    parts.engine.lost = 1
    with pytest.raises(EngineError, match="must answer every request, lost 1"):
        generate(parts)
    assert parts.ended == [True]


def test_weights_that_cannot_be_pulled_leave_the_engine_alone(parts):
    with pytest.raises(KeyError):
        sync(parts, WeightId(9, 9))
    assert not parts.ended


def test_an_engine_reports_the_checksum_of_what_arrived(parts):
    assert sync(parts, None) is None
    assert sync(parts, FIRST) == SyncReport(FIRST, parts.weights[FIRST].checksum, None)
    assert sync(parts, SECOND) == SyncReport(SECOND, parts.weights[SECOND].checksum, None)


def test_weights_that_changed_on_the_way_are_never_loaded(parts):
    parts.weights[FIRST].buffer[0] ^= 1
    with pytest.raises(EngineError, match="must arrive as they were packed"):
        sync(parts, FIRST)
    assert parts.ended == [True]


def test_an_engine_proves_once_that_it_answers_with_the_weights_it_loaded(parts):
    parts.weights[FIRST] = packed(1.0, Probe((1, 2, 3), (-1.25, -1.0)))
    assert sync(parts, FIRST).probe_diff == pytest.approx(0.125)  # mean of 0.25 and 0
    parts.weights[SECOND] = packed(2.0, Probe((1, 2, 3), (-9.0, -9.0)))
    assert sync(parts, SECOND).probe_diff == pytest.approx(0.125)  # measured with the first weights alone


def test_an_engine_with_other_weights_than_it_was_given_never_answers(parts):
    parts.weights[FIRST] = packed(1.0, Probe((1, 2, 3), (-4.0, -5.0)))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"may differ by 0.5 from the learner's, got 3.5"):
            generate(parts)
    assert not parts.ended  # a new engine would be no better


def cached(tmp_path: Path, *, kv_cache_gib: float = 1.0, dtype: str = "bfloat16", **described: Any) -> int:
    """Bytes for 3 sequences of 100 tokens."""
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    shape |= {"num_key_value_heads": 2, "vocab_size": 50, "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(shape | described))
    model = ModelConfig.model_validate({"dtype": dtype})
    return rollout.cache_bytes(RolloutConfig(kv_cache_gib=kv_cache_gib), model, tmp_path, 100, 3)


def test_a_cache_is_no_larger_than_what_fills_it(tmp_path):
    # 4 blocks of 32 tokens for each of 3 sequences and one more; keys and values, 2 layers, 2 heads of 16, 2 bytes
    assert cached(tmp_path) == 13 * 32 * 2 * 2 * 32 * 2
    assert cached(tmp_path, dtype="float32") == 13 * 32 * 2 * 2 * 32 * 4


def test_a_cache_is_never_larger_than_it_may_be(tmp_path):
    assert cached(tmp_path, kv_cache_gib=2**-16) == 2**14


def test_models_with_other_caches_get_all_of_it(tmp_path):
    assert cached(tmp_path, model_type="jamba") == 2**30
    assert cached(tmp_path, num_experts=8) == 2**30


@pytest.mark.parametrize(
    ("settings", "compiles"), [({}, False), ({"enforce_eager": False}, True), ({"num_gpus": 1}, True)]
)
def test_an_eager_engine_on_a_cpu_compiles_nothing(settings, compiles):
    environment = rollout.engine_environment(RolloutConfig.model_validate(settings))
    assert ("TORCHDYNAMO_DISABLE" not in environment) == compiles
