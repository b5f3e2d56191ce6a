"""Forgetting: the perplexity of worked solutions that have nothing to do with the bank, with and without the memory."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from pipeline.config import SFTConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.data.problems import question_alone
from pipeline.data.tokens import encode_problems
from pipeline.errors import DataError
from pipeline.evaluation.datasets import load_data_set
from pipeline.evaluation.memory.loading import Evaluated
from pipeline.models.memory.generation import find_route
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.prompts import read_prompts
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.sft import held_out_sums, perplexity, solution_batches


def forgetting(
    evaluated: Evaluated, names: Sequence[str], data_root: str | None, max_texts: int, seed: int, max_tokens: int
) -> dict[str, dict[str, Any]]:
    """Perplexity of the solutions of data sets, by name of the data set.

    Args:
        names: as for ``evaluate.py``: registered, embedded, a path, or a hub name.
        max_tokens: of a solution with its question; longer ones are left out and counted.
    """
    found = {}
    for name in names:
        settings = {"model": "-", "dataset": name, "data_root": data_root, "seed": seed}
        config = EvaluationConfig.model_validate(settings | {"problems": {"max_problems": max_texts}})
        sequences = _sequences(evaluated, name, config)
        kept = [sequence for sequence in sequences if len(sequence) <= max_tokens]
        if not kept:
            raise DataError(
                f"--texts {name} must have a text of at most {max_tokens} tokens, got none of {len(sequences)}. "
                "Raise --max-text-tokens."
            )
        found[name] = text_perplexity(evaluated.model, evaluated.memory, kept) | {
            "num_texts": len(kept),
            "num_too_long": len(sequences) - len(kept),
        }
    return found


def _sequences(evaluated: Evaluated, name: str, config: EvaluationConfig) -> list[TokenSequence]:
    """Questions as prompts and solutions as completions, asked as the model is asked."""
    problems = [
        replace(question_alone(problem.asked, evaluated.data), solution=problem.solution)
        for problem in load_data_set(name, config).problems
        if problem.solution
    ]
    if not problems:
        raise DataError(f"--texts {name} must have worked solutions, got none: perplexity is measured on them.")
    tokens = encode_problems(evaluated.tokenizer, problems).to_pylist()
    return [TokenSequence(tuple(row["prompt"]), tuple(row["completion"])) for row in tokens]


def text_perplexity(model: Any, memory: ExplicitMemory | None, sequences: Sequence[TokenSequence]) -> dict[str, Any]:
    """Perplexity of completions: ``without`` memory and, if the model has one, ``with`` it.

    With a pooled query the memory is read from the prompt's last token on, otherwise at every position.
    """
    weight = model.get_input_embeddings().weight
    batches = solution_batches(sequences, SFTConfig(packing=False), 4096, weight.device, weight.dtype)
    with memory.reading(None) if memory else nullcontext():
        found = {"without": _measured(held_out_sums(model, batches, torch.float32))}
    if memory:
        sums = torch.zeros(3, dtype=torch.float64)
        for batch, reading in _readings(model, memory, batches, sequences):
            with memory.reading(reading):
                sums += torch.tensor(held_out_sums(model, [batch], torch.float32), dtype=torch.float64)
        found["with"] = _measured(sums.tolist())
    return found


def _measured(sums: Sequence[float]) -> dict[str, float]:
    loss, hits, tokens = sums
    return {"perplexity": perplexity(loss / tokens), "token_accuracy": hits / tokens, "num_tokens": tokens}


def _readings(
    model: Any, memory: ExplicitMemory, batches: Sequence[MicroBatch], sequences: Sequence[TokenSequence]
) -> Iterator[tuple[MicroBatch, Reading]]:
    for batch in batches:
        if memory.router is None:
            yield batch, Reading()
            continue
        prompts = [sequences[row].prompt for row in batch.rows]
        route = find_route(memory, read_prompts(model, prompts, with_kv=False))
        starts = torch.tensor([len(prompt) - 1 for prompt in prompts], device=batch.input_ids.device)
        places = torch.arange(batch.input_ids.shape[1], device=starts.device)
        yield batch, Reading(positions=places >= starts[:, None], entries=memory.bank.tokens(route.chosen))
