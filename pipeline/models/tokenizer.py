"""Turns texts into tokens, without torch."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import ModelConfig
from pipeline.errors import ModelError, first_line
from pipeline.models.imports import import_transformers
from pipeline.types import Message, Problem

_END_OF_PROMPT = 20
"""Characters at the end of a prompt that are compared with what comes before an answer."""


class Tokenizer(Protocol):
    """The parts we use of a tokenizer of the transformers library."""

    eos_token_id: int
    chat_template: str | None
    all_special_ids: list[int]

    def __call__(self, text: list[str], *, add_special_tokens: bool = True) -> Mapping[str, list[list[int]]]: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

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
    import_transformers()
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
    and Qwen). What it puts after a text is left out: the policy goes on there.
    """
    return tuple(batch_token_ids(tokenizer, [problem])[0])


def batch_token_ids(tokenizer: Tokenizer, problems: Sequence[Problem]) -> list[list[int]]:
    """``prompt_token_ids`` of each problem, but faster. Either all problems are chats or all are plain text.

    Raises:
        ModelError: the chat template refuses a problem.
    """
    token_ids: list[list[int]]
    if problems[0].prompt_text is None:
        return _chat_token_ids(tokenizer, problems)
    num_after = _num_tokens_after(tokenizer)
    token_ids = tokenizer([problem.prompt_text or "" for problem in problems])["input_ids"]
    return [ids[: len(ids) - num_after] for ids in token_ids]


def _chat_token_ids(tokenizer: Tokenizer, problems: Sequence[Problem]) -> list[list[int]]:
    from jinja2 import TemplateError

    chats = [list(problem.prompt) for problem in problems]
    try:
        token_ids: list[list[int]] = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    except (TemplateError, TypeError, ValueError) as error:
        refusals = ((problem, _refusal(tokenizer, problem.prompt)) for problem in problems)
        problem, refused = next((pair for pair in refusals if pair[1]), (problems[0], first_line(error)))
        raise ModelError(f"the model must have a chat template that takes {_described(problem)}: {refused}.") from None
    return token_ids


def turns_token_ids(tokenizer: Tokenizer, messages: Sequence[Message], end: int) -> tuple[list[int], list[bool]]:
    """A prompt's tokens, and which of them are turns of the assistant: what it said, up to the token that ends a turn.

    What was said is encoded by itself, as a completion is, so that no token spans the beginning of a turn.

    Args:
        end: ``end_of_turn_id``.

    Raises:
        ModelError: the chat template does not show the turns as they were when they were written.
    """
    pieces: list[str] = []
    text, at = _prompt_text(tokenizer, messages), 0
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            start, said = _turn(text, _prompt_text(tokenizer, messages[:index]), message["content"])
            pieces += [text[at:start], said]
            at = start + len(said)
    encoded = tokenizer([*pieces, text[at:]], add_special_tokens=False)["input_ids"]
    learned = [[number % 2 == 1] * len(ids) for number, ids in enumerate(encoded)]
    for number in range(2, len(encoded), 2):
        num_ending = _num_ending(tokenizer, encoded[number], end)
        learned[number][:num_ending] = [True] * num_ending
    return list(chain.from_iterable(encoded)), list(chain.from_iterable(learned))


def _turn(text: str, before: str, content: str) -> tuple[int, str]:
    """Where a turn's content begins, and the content as the template shows it."""
    said = content if text.startswith(content, len(before)) else content.strip()
    start = text.find(said, len(before)) if text.startswith(before) else -1
    if start < 0:
        raise ModelError(
            f"the model must have a chat template that keeps earlier turns of the assistant as they were, got one that "
            f"changes {content!r:.60}. Use another model, or conversations of one turn."
        )
    return start, said


def _num_ending(tokenizer: Tokenizer, after: Sequence[int], end: int) -> int:
    """The number of tokens up to the one that ends a turn; 0 if the template does not end turns with it."""
    place = after.index(end) if end in after else -1
    return place + 1 if place >= 0 and not tokenizer.decode(after[:place]).strip() else 0


def _prompt_text(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ModelError(f"the model must have a chat template that takes {roles}: {first_line(error)}.") from None


def _described(problem: Problem) -> str:
    return f"problem {problem.id} (roles: {', '.join(message['role'] for message in problem.prompt)})"


def _num_tokens_after(tokenizer: Tokenizer) -> int:
    """The number of tokens that the tokenizer puts after every text."""
    bare, whole = (tokenizer.encode("1", add_special_tokens=special) for special in (False, True))
    starts = range(len(whole) - len(bare) + 1)
    return next((len(whole) - start - len(bare) for start in starts if whole[start : start + len(bare)] == bare), 0)


def end_of_turn_id(tokenizer: Tokenizer) -> int:
    """The token with which the chat template ends an assistant's turn: ``<|im_end|>``, ``<end_of_turn>``.

    It need not be the tokenizer's eos, which stands in where there is no template, or where the template ends a turn
    with ordinary text or with nothing.
    """
    if tokenizer.chat_template is None:
        return tokenizer.eos_token_id
    added = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    after = tokenizer.encode(_text_after_turn(tokenizer), add_special_tokens=False)
    first = next((token for token in after if tokenizer.decode([token]).strip()), tokenizer.eos_token_id)
    return first if first in added else tokenizer.eos_token_id


def end_ids(model: Any, tokenizer: Tokenizer) -> list[int]:
    """Tokens that end an answer: the end of a turn, the tokenizer's eos, and those of the model's settings."""
    named = model.generation_config.eos_token_id
    own = named if isinstance(named, list) else [named] if named is not None else []
    return sorted({end_of_turn_id(tokenizer), tokenizer.eos_token_id, *own})


def _text_after_turn(tokenizer: Tokenizer) -> str:
    from jinja2 import TemplateError

    answer = "The answer is 2."
    chat = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": answer}]
    try:
        _, found, after = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(answer)
    except TemplateError:  # it wants another chat, which check_prompt would say of ours
        return ""
    return after if found else ""


def check_prompt(tokenizer: Tokenizer, problem: Problem, model: str) -> None:
    """Ask one problem.

    Raises:
        ModelError: the chat template refuses or leaves out one of the messages, or does not ask for an answer.
    """
    if problem.prompt_text is not None:
        return
    refused = _refusal(tokenizer, problem.prompt)
    if refused is None:
        return _check_answer_is_asked_for(tokenizer, problem.prompt, model)
    without_system = [message for message in problem.prompt if message["role"] != "system"]
    if len(without_system) < len(problem.prompt) and _refusal(tokenizer, without_system) is None:
        raise ModelError(
            f"data.system_prompt must be empty for model {model}, whose chat template takes no system message: "
            f"{refused}. Add data.system_prompt='' (to an evaluation: prompt.system_prompt=''), and leave system "
            f"messages out of the data. It is {_described(problem)}."
        )
    raise ModelError(
        f"model {model} must have a chat template that takes the problems: {refused}. It is {_described(problem)}. "
        "Use another model, or set data.prompt_template."
    )


def _check_answer_is_asked_for(tokenizer: Tokenizer, messages: Sequence[Message], model: str) -> None:
    """Raises ModelError if the policy would have to write the header of its own turn, ``<|im_start|>assistant``."""
    from jinja2 import TemplateError

    chat, answer = list(messages), "The answer is 2."
    prompt = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    if prompt != str(tokenizer.apply_chat_template(chat, tokenize=False)):
        return
    try:
        answered = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": answer}], tokenize=False)
    except (TemplateError, TypeError, ValueError):  # nothing to compare with
        return
    before = str(answered).rpartition(answer)[0].rstrip()
    if not before.endswith(prompt.rstrip()[-_END_OF_PROMPT:]):
        raise ModelError(
            f"model {model} must have a chat template that heeds add_generation_prompt, got the same prompt with and "
            f"without it, where an answer comes after {before[-_END_OF_PROMPT:]!r}: the policy would have to begin its "
            "own turn. Mend the template, use another model, or set data.prompt_template."
        )


def _refusal(tokenizer: Tokenizer, messages: Sequence[Message]) -> str | None:
    """The reason why the chat template does not show these messages."""
    from jinja2 import TemplateError

    try:
        text = str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:200]
    left_out = [message["role"] for message in messages if message["content"].strip() not in text]
    return f"it leaves out the {left_out[0]} message" if left_out else None
