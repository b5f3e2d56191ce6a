"""Turns texts into tokens, without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.types import Problem


class Tokenizer(Protocol):
    """The parts we use of a tokenizer of the transformers library."""

    eos_token_id: int
    chat_template: str | None

    def __call__(self, text: list[str], *, add_special_tokens: bool = True) -> Mapping[str, list[list[int]]]: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
    ) -> Any:
        """Text or token ids, of one chat or of a list of chats."""

    def save_pretrained(self, save_directory: Path) -> object: ...


def load_tokenizer(path: Path, config: ModelConfig, *, chat: bool = True) -> Tokenizer:
    """The model's tokenizer.

    Args:
        chat: prompts go through its chat template.

    Raises:
        ModelError: it cannot be loaded, or lacks an end-of-turn token or the chat template it needs.
    """
    from transformers import AutoTokenizer

    tokenizer: Tokenizer
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


def prompt_token_ids(tokenizer: Tokenizer, problem: Problem) -> tuple[int, ...]:
    """The tokens after which the policy starts to write.

    Plain text begins with the tokens that the tokenizer itself puts before a text (Llama's bos; nothing for SmolLM2
    and Qwen).
    """
    if problem.prompt_text is not None:
        return tuple(tokenizer.encode(problem.prompt_text))
    return tuple(tokenizer.apply_chat_template(list(problem.prompt), add_generation_prompt=True, return_dict=False))


def batch_token_ids(tokenizer: Tokenizer, problems: Sequence[Problem]) -> list[list[int]]:
    """``prompt_token_ids`` of each problem, but faster. Either all problems are chats or all are plain text."""
    if problems[0].prompt_text is not None:
        return tokenizer([problem.prompt_text or "" for problem in problems])["input_ids"]
    chats = [list(problem.prompt) for problem in problems]
    token_ids: list[list[int]] = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    return token_ids
