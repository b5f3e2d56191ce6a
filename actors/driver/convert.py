"""Converts files of multiple-choice rows: in the driver or, if they are large, with Ray Data."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa

from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import RESULTS, converted, file_parts

MIN_BYTES = 16 * 2**20
"""Below this size the driver converts the rows itself, because Ray Data takes seconds to start."""
MAX_BYTES_IN_FLIGHT = 256 * 2**20
OBJECT_STORE_BYTES = 512 * 2**20
"""Of a private Ray."""


def convert_files(sources: Sequence[Path], settings: ConvertSettings) -> Iterator[pa.RecordBatch]:
    """``pipeline.data.omcq.output.Results``: each batch belongs to one source.

    Raises:
        ClusterError: the cluster at RAY_ADDRESS cannot be reached.
    """
    if sum(os.path.getsize(source) for source in sources) < MIN_BYTES:
        for part in file_parts(sources):
            yield from converted(part, settings)
    else:
        yield from _converted_by_ray(sources, settings)


def _converted_by_ray(sources: Sequence[Path], settings: ConvertSettings) -> Iterator[pa.RecordBatch]:
    import ray

    from actors.connection import connect_with_code
    from actors.driver.ordered_data import tables_in_order, tasks_can_start

    parts = file_parts([source.resolve() for source in sources])

    def convert(number: int) -> Iterator[pa.Table]:
        for batch in converted(parts[number], settings):
            yield pa.Table.from_batches([batch])

    connect_with_code(object_store_memory=OBJECT_STORE_BYTES)
    try:
        if tasks_can_start():
            tables = tables_in_order(convert, len(parts), max_bytes=MAX_BYTES_IN_FLIGHT)
        else:
            tables = chain.from_iterable(map(convert, range(len(parts))))
        for table in tables:
            yield from table.cast(RESULTS).to_batches()
    finally:
        ray.shutdown()
