"""Rollouts of 128 completions whose lengths vary by ten, in one engine: our path beside chunks of 4 and bare vLLM.

    python -m tests.benchmarks.rollouts [--rounds 3] [--data ../shared/data/gsm8k]

16 prompts x 8 completions of 16 to 300 tokens. Every request ends at a length drawn for its seed, so that all ways do
the same work. An unmeasured pass comes first; then all ways take turns, in one process without Ray.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.engine_loop import Decoding
from actors.rollout import RolloutWorker
from pipeline.config import ModelConfig, RolloutConfig
from pipeline.data import load_problems
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer
from pipeline.types import PromptRequest
from tests.benchmarks.grpo_work import GSM8K, data_config, write_problems
from tests.benchmarks.machine import describe_machine, matmul_tflops

NUM_PROMPTS, NUM_GENERATIONS = 16, 8
SHORTEST, LONGEST = 16, 300
MAX_MODEL_LEN = 1024
DECODING = Decoding(temperature=1.0, max_completion_length=LONGEST)
OLD, NEW, BARE = "chunks of 4 prompts", "our path", ("LLM.generate", "llm_engine, stepped by hand")


def draw_lengths(num: int, seed: int = 0) -> list[int]:
    """Tokens of every completion: as many between 16 and 32 as between 150 and 300. The extremes occur."""
    draw = random.Random(seed)
    lengths = [round(SHORTEST * (LONGEST / SHORTEST) ** draw.random()) for _ in range(num - 2)]
    return [SHORTEST, *lengths, LONGEST]


def end_at(engine: Any, lengths: Mapping[int, int]) -> None:
    """Every request to this vLLM engine ends at the length of its seed, whatever it writes."""
    add_request = engine.add_request

    def add(request_id: str, prompt: Any, params: Any, *rest: Any, **named: Any) -> Any:
        params = params.clone()
        params.max_tokens, params.ignore_eos, params.stop_token_ids = lengths[params.seed], True, []
        return add_request(request_id, prompt, params, *rest, **named)

    engine.add_request = add


def our_path(worker: RolloutWorker, requests: list[PromptRequest]) -> int:
    return in_chunks(worker, requests, NUM_PROMPTS)


def in_chunks(worker: RolloutWorker, requests: list[PromptRequest], size: int) -> int:
    """Chunks that are never mixed. Returns the number of completion tokens."""
    chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
    groups = [group for chunk in chunks for group in asyncio.run(worker.generate(None, chunk, DECODING))]
    return sum(len(completion.token_ids) for group in groups for completion in group)


def with_generate(llm: Any, requests: list[PromptRequest]) -> int:
    llm.reset_prefix_cache()
    prompts, params = _bare(requests)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def by_hand(llm: Any, requests: list[PromptRequest]) -> int:
    llm.reset_prefix_cache()
    engine = llm.llm_engine
    for prompt, params in zip(*_bare(requests), strict=True):
        engine.add_request(f"by-hand-{next(_REQUEST_NUMBERS)}", {"prompt_token_ids": prompt}, params)
    num_tokens = 0
    while engine.has_unfinished_requests():
        num_tokens += sum(len(output.outputs[0].token_ids) for output in engine.step() if output.finished)
    return num_tokens


_REQUEST_NUMBERS = count()


def _bare(requests: list[PromptRequest]) -> tuple[list[list[int]], list[Any]]:
    """Prompts and sampling settings as RolloutWorker has them."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    final = RequestOutputKind.FINAL_ONLY
    pairs = [(request.prompt_token_ids, seed) for request in requests for seed in request.seeds]
    params = [SamplingParams(temperature=1.0, seed=seed, logprobs=0, output_kind=final) for _, seed in pairs]
    return [list(prompt) for prompt, _ in pairs], params


def ways_of(worker: RolloutWorker, requests: list[PromptRequest]) -> dict[str, Callable[[], int]]:
    llm = _llm(worker)
    calls = (partial(with_generate, llm, requests), partial(by_hand, llm, requests))
    return {
        OLD: partial(in_chunks, worker, requests, 4),
        NEW: partial(our_path, worker, requests),
        **dict(zip(BARE, calls, strict=True)),
    }


def prompt_requests(source: Path) -> tuple[list[PromptRequest], str]:
    """The requests, with seeds from 0, and where their prompts come from."""
    with tempfile.TemporaryDirectory() as directory:
        name = write_problems(Path(directory), source, NUM_PROMPTS)
        problems = load_problems(data_config(Path(directory)), "train")[:NUM_PROMPTS]
    tokenizer = load_tokenizer(resolve_model(ModelConfig()), ModelConfig())
    prompts = [tuple(tokenizer.encode(str(problem.prompt_text))) for problem in problems]
    first = range(0, NUM_PROMPTS * NUM_GENERATIONS, NUM_GENERATIONS)
    seeds = [tuple(range(start, start + NUM_GENERATIONS)) for start in first]
    return [PromptRequest(prompt, own) for prompt, own in zip(prompts, seeds, strict=True)], name


def ratios(seconds: Mapping[str, list[float]]) -> list[str]:
    """Bare vLLM is the faster of its two ways."""
    medians = {name: median(times) for name, times in seconds.items()}
    bare = min(medians[name] for name in BARE)
    return [
        f"speedup over chunks of 4: {medians[OLD] / medians[NEW]:.2f}",
        f"of bare vLLM: {bare / medians[NEW]:.2f}",
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=GSM8K, help="directory of GSM8K's train.jsonl")
    arguments = parser.parse_args(argv)
    requests, source = prompt_requests(arguments.data)
    lengths = dict(enumerate(draw_lengths(NUM_PROMPTS * NUM_GENERATIONS)))
    before = matmul_tflops()
    worker = RolloutWorker(RolloutConfig(), ModelConfig(), MAX_MODEL_LEN, len(lengths), pull=_no_weights)
    end_at(_llm(worker).llm_engine, lengths)
    ways = ways_of(worker, requests)
    ways[BARE[0]]()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            num_tokens = way()
            seconds[name].append(time.perf_counter() - start)
            assert num_tokens == sum(lengths.values()), f"{name} wrote {num_tokens} tokens"
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    worker.close()
    title = f"{len(lengths)} completions, {sum(lengths.values())} tokens, prompts: {source}"
    table = Table("", "s, median", "tokens/s", title=title)
    for name, times in seconds.items():
        table.add_row(name, f"{median(times):.1f}", f"{sum(lengths.values()) / median(times):.0f}")
    Console().print(table)
    print(f"{describe_machine()}; matmul: {before:.2f} TFLOP/s before, {matmul_tflops():.2f} after")
    print("\n".join(ratios(seconds)))


def _llm(worker: RolloutWorker) -> Any:
    """vLLM itself, which only the loop's thread may use while the loop has something to do."""
    engine: Any = worker._loop._engine
    return engine._llm


def _no_weights(_: Any) -> Any:
    raise AssertionError("the engine has the weights of the model's files")


if __name__ == "__main__":
    main()
