"""Texts to tokens, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.types import Problem


def load_tokenizer(path: Path, config: ModelConfig, *, chat: bool = True) -> Any:
    """The model's tokenizer. Raises ModelError when there is none, or it has no end-of-turn token or, to chat, no chat
    template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"model {config.name} must have a tokenizer: {' '.join(str(error).split())[:300]}") from None
    if tokenizer.eos_token_id is None or (chat and tokenizer.chat_template is None):
        raise ModelError(
            f"model {config.name} must have a chat template and an end-of-turn token. Use a chat model, or set "
            "data.prompt_template, which needs no chat template."
        )
    return tokenizer


def prompt_token_ids(tokenizer: Any, problem: Problem) -> tuple[int, ...]:
    """The prompt up to where the policy starts to write. Plain text begins with the tokens that the tokenizer itself
    puts before a text (Llama's bos; nothing for SmolLM2 and Qwen)."""
    if problem.prompt_text is not None:
        return tuple(tokenizer.encode(problem.prompt_text))
    return tuple(tokenizer.apply_chat_template(list(problem.prompt), add_generation_prompt=True, return_dict=False))


def batch_token_ids(tokenizer: Any, problems: Sequence[Problem]) -> list[list[int]]:
    """What ``prompt_token_ids`` gives for each, and faster. They are all chats or all plain text."""
    if problems[0].prompt_text is not None:
        return tokenizer([problem.prompt_text for problem in problems])["input_ids"]
    chats = [list(problem.prompt) for problem in problems]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
