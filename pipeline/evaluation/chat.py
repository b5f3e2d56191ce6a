"""A finished run answers questions, with the prompt it was trained on."""

from pathlib import Path
from typing import Any

import torch

from pipeline.data.problems import question_alone
from pipeline.errors import CheckpointError
from pipeline.models.policy import load_policy
from pipeline.models.tokenizer import Tokenizer, end_of_turn_id, load_tokenizer, prompt_token_ids
from pipeline.runs.directory import RunDirectory


class ChatModel:
    """The final model of a run.

    Args:
        trust_remote_code: run Python code that comes with the model. The run's own setting is ignored: its directory
            may be another person's.

    Raises:
        CheckpointError: the run has no final model.
        ModelError: the model cannot be loaded.
    """

    def __init__(self, run_path: Path, *, trust_remote_code: bool = False) -> None:
        run = RunDirectory.open(str(run_path), "")
        if not (run.final_model / "config.json").is_file():
            raise CheckpointError(
                f"run {run_path} must have a final model to chat with: it is unfinished, or its "
                "output.save_final_model is false."
            )
        config = run.load_config()
        self._data = config.data
        changes = {"lora": None, "name": str(run.final_model), "trust_remote_code": trust_remote_code}
        model_config = config.model.model_copy(update=changes)
        self._tokenizer = load_tokenizer(run.final_model, model_config, chat=config.data.uses_chat_template)
        self._model = load_policy(run.final_model, model_config).eval()
        self._end_ids = sorted({end_of_turn_id(self._tokenizer), *_eos_ids(self._model, self._tokenizer)})

    @torch.no_grad()
    def answer(self, question: str, max_new_tokens: int = 256, temperature: float = 0.0) -> str:
        """The model's completion. Temperature 0 is greedy."""
        prompt = prompt_token_ids(self._tokenizer, question_alone(question, self._data))
        input_ids = torch.tensor([prompt], device=next(self._model.parameters()).device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        output = self._model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=max_new_tokens, eos_token_id=self._end_ids, **sampling
        )
        return str(self._tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))


def _eos_ids(model: Any, tokenizer: Tokenizer) -> set[int]:
    ids = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ids if isinstance(ids, list) else [ids] if ids is not None else [])}
