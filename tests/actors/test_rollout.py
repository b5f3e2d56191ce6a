import sys
from types import SimpleNamespace
from typing import Any

from actors import rollout
from actors.rollout import Decoding, RolloutWorker
from pipeline.config import ModelConfig, RolloutConfig
from pipeline.types import PromptRequest
from tests.support.models import tiny_tokenizer


class FakeEngine:
    """Remembers how it was asked to sample. A real one was seen to stop at such tokens and to keep them."""

    def __init__(self, tokenizer: Any) -> None:
        self.get_tokenizer = lambda: tokenizer
        self.asked: list[dict[str, Any]] = []

    def reset_prefix_cache(self) -> None:
        pass

    def generate(self, prompts: list[Any], params: list[dict[str, Any]], use_tqdm: bool) -> list[Any]:
        self.asked += params
        completion = SimpleNamespace(token_ids=[], logprobs=[], text="", finish_reason="stop")
        return [SimpleNamespace(outputs=[completion]) for _ in prompts]


def test_an_engine_stops_where_the_template_ends_a_turn(monkeypatch):
    tokenizer = tiny_tokenizer(eos="<eos>", special=["<|im_end|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    engine = FakeEngine(tokenizer)
    monkeypatch.setattr(rollout, "_start_engine", lambda *_: engine)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=lambda **settings: settings))
    worker = RolloutWorker(RolloutConfig(), ModelConfig(), 32, 1, lambda weight_id: None)  # type: ignore[arg-type, return-value]
    worker.generate(None, [PromptRequest((1, 2), (0,))], Decoding(1.0))
    assert [params["stop_token_ids"] for params in engine.asked] == [[tokenizer.convert_tokens_to_ids("<|im_end|>")]]
