"""A finished run's final model, with the prompt it was trained on."""

from pathlib import Path

import torch

from pipeline.errors import CheckpointError
from pipeline.experiment import RunDirectory
from pipeline.models.policy import load_policy, load_tokenizer


class ChatModel:
    """Loads ``final_model`` of a run. Raises CheckpointError when the run has none."""

    def __init__(self, run_path: Path) -> None:
        run = RunDirectory.open(str(run_path), "")
        if not (run.final_model / "config.json").is_file():
            raise CheckpointError(
                f"run {run_path} must have a final model to chat with: it is not finished, or was told not to save one."
            )
        config = run.load_config()
        self._system_prompt = config.data.system_prompt
        model_config = config.model.model_copy(update={"lora": None, "name": str(run.final_model)})
        self._tokenizer = load_tokenizer(run.final_model, model_config)
        self._model = load_policy(run.final_model, model_config).eval()

    @torch.no_grad()
    def answer(self, question: str, max_new_tokens: int = 256, temperature: float = 0.0) -> str:
        """The model's completion. Temperature 0 is greedy."""
        messages = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        messages.append({"role": "user", "content": question})
        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self._model.device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        output = self._model.generate(**inputs, max_new_tokens=max_new_tokens, **sampling)  # type: ignore[operator]
        return self._tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
