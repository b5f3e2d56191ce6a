"""Encodes training problems once: in the driver or, if there are many, with Ray Data."""

import logging
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.driver.ordered_data import tables_in_order, tasks_can_start
from pipeline.config import ModelConfig
from pipeline.data.arrow_files import ROWS_PER_BATCH, write_batches
from pipeline.data.table import ProblemTable
from pipeline.data.tokens import TOKENS, TokenTable, encode_problems, new_tokens
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

MIN_ROWS = 5000
"""Below this many rows the driver encodes them itself, because Ray Data takes seconds to start. It also does where a
job's actors have left no CPU to Ray Data's tasks: they would wait forever."""
ROWS_PER_TASK = 4 * ROWS_PER_BATCH
MAX_BYTES_IN_FLIGHT = 256 * 2**20
"""Encoded tokens in the object store. Tasks wait if the driver does not keep up."""


def make_tokens(problems: ProblemTable, config: ModelConfig, *, chat: bool) -> TokenTable:
    """Tokens of all problems in the table's file. They are in a file beside it, which is written unless it exists.

    Args:
        problems: any rows of the table.
        chat: prompts go through the chat template.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    with new_tokens(problems, resolve_model(config), chat=chat) as (tokens, path):
        if path:
            _write(path, problems, config, chat)
    return tokens


def _write(path: Path, problems: ProblemTable, config: ModelConfig, chat: bool) -> None:
    whole = problems.whole()
    logger.info("encoding %d problems", len(whole))
    if len(whole) < MIN_ROWS or not tasks_can_start():
        write_batches(path, TOKENS, _encoded(whole, load_tokenizer(resolve_model(config), config, chat=chat)))
    else:
        write_batches(path, TOKENS, _encoded_by_ray(whole, config, chat))
    if (num_rows := len(TokenTable(path).lengths()[0])) != len(whole):
        raise RuntimeError(f"{num_rows} rows of tokens for {len(whole)} problems")


def _encoded(problems: ProblemTable, tokenizer: Any) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(problems), ROWS_PER_BATCH):
        yield encode_problems(tokenizer, list(problems[start : start + ROWS_PER_BATCH]))


def _encoded_by_ray(problems: ProblemTable, config: ModelConfig, chat: bool) -> Iterator[pa.RecordBatch]:
    """The batches in order. A task gets the place of its first row, and reads its rows from the file itself."""
    num_tasks = -(-len(problems) // ROWS_PER_TASK)
    none, settings = problems[:0], config.model_dump_json()

    def encode(task: int) -> Iterator[pa.Table]:
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # transformers then does without: 480 MB less
        tokenizer = _cached_tokenizer(settings, chat)
        start = task * ROWS_PER_TASK
        own = none.whole()[start : start + ROWS_PER_TASK]
        yield pa.Table.from_batches(_encoded(own, tokenizer), schema=TOKENS)

    # The variable keeps other tasks and actors out of these processes, in which torch cannot be imported.
    variables = {"TOKENIZERS_PARALLELISM": "false"}
    for table in tables_in_order(encode, num_tasks, max_bytes=MAX_BYTES_IN_FLIGHT, env_vars=variables):
        yield from table.combine_chunks().cast(TOKENS).to_batches(max_chunksize=ROWS_PER_BATCH)


@lru_cache(maxsize=1)
def _cached_tokenizer(settings: str, chat: bool) -> Any:
    """Loaded once by each of Ray's worker processes."""
    config = ModelConfig.model_validate_json(settings)
    return load_tokenizer(resolve_model(config), config, chat=chat)
