"""A finished run answers questions, with the prompt it was trained on."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.config.evaluation import LoadingConfig
from pipeline.data.problems import question_alone
from pipeline.errors import CheckpointError
from pipeline.evaluation.memory.loading import Source, final_memory, load_evaluated
from pipeline.evaluation.memory.lookups import layer_lookups, routed_lookups
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.generation import Answer, Route, drawn, generate, likeliest
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.policy import load_policy
from pipeline.models.tokenizer import end_ids, load_tokenizer, prompt_token_ids
from pipeline.runs.directory import RunDirectory


@dataclass(frozen=True)
class Reply:
    """An answer, and the entries of the memory that it was made from."""

    text: str
    entries: list[str]
    """Most similar first or, if each position has its own, most often read first."""


class ChatModel:
    """The final model of a run, or its backbone with its final memory.

    Args:
        trust_remote_code: run Python code that comes with the model. The run's own setting is ignored: its directory
            may be another person's.

    Raises:
        CheckpointError: the run has neither a final model nor a final memory.
        ModelError: the model cannot be loaded.
    """

    def __init__(self, run_path: Path, *, trust_remote_code: bool = False) -> None:
        self._model: Any
        run = RunDirectory.open(str(run_path), "")
        if final_memory(run):
            self._load_memory(run, LoadingConfig(trust_remote_code=trust_remote_code))
        else:
            self._load_model(run, trust_remote_code)
        self._end_ids = end_ids(self._model, self._tokenizer)

    def _load_memory(self, run: RunDirectory, loading: LoadingConfig) -> None:
        loaded = load_evaluated(Source(run=str(run.path), loading=loading), run.path.parent / "data_cache")
        self._data, self._tokenizer, self._model = loaded.data, loaded.tokenizer, loaded.model

    def _load_model(self, run: RunDirectory, trust_remote_code: bool) -> None:
        if not (run.final_model / "config.json").is_file():
            raise CheckpointError(
                f"run {run.path} must have a final model to chat with: it is unfinished, or its "
                "output.save_final_model is false."
            )
        config = run.load_config()
        self._data = config.data
        changes = {"lora": None, "name": str(run.final_model), "trust_remote_code": trust_remote_code}
        model_config = config.model.model_copy(update=changes)
        self._tokenizer = load_tokenizer(run.final_model, model_config, chat=config.data.uses_chat_template)
        self._model = load_policy(run.final_model, model_config).eval()

    def answer(self, question: str, max_new_tokens: int = 256, temperature: float = 0.0) -> str:
        """The model's completion. Temperature 0 is greedy."""
        return self.reply(question, max_new_tokens, temperature).text

    def reply(self, question: str, max_new_tokens: int = 256, temperature: float = 0.0) -> Reply:
        """The completion, with the entries that it was made from."""
        prompt = prompt_token_ids(self._tokenizer, question_alone(question, self._data))
        memory = memory_of(self._model)
        if memory is None:
            return Reply(self._text(self._written(prompt, max_new_tokens, temperature)), [])
        pick = partial(drawn, temperature=temperature) if temperature else likeliest
        (answer,) = generate(self._model, [prompt], self._end_ids, max_new_tokens, pick)
        return Reply(self._text(answer.token_ids), self._entries(memory, prompt, answer))

    @torch.no_grad()
    def _written(self, prompt: tuple[int, ...], max_new_tokens: int, temperature: float) -> list[int]:
        input_ids = torch.tensor([prompt], device=next(self._model.parameters()).device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        output = self._model.generate(**inputs, max_new_tokens=max_new_tokens, eos_token_id=self._end_ids, **sampling)
        written: list[int] = output[0, len(prompt) :].tolist()
        return written

    def _text(self, token_ids: Any) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def _entries(self, memory: ExplicitMemory, prompt: tuple[int, ...], answer: Answer) -> list[str]:
        if answer.route is None:
            found = layer_lookups(self._model, [prompt], [answer.token_ids], [-1], memory.bank, self._tokenizer, 0)
        else:
            route = Route(*(part[None] for part in vars(answer.route).values()))
            found = routed_lookups(route, [-1], memory.bank, self._tokenizer)
        read: list[str] = found.rows[0]["read"]
        return [text for text in read if text]
