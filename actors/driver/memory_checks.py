"""Checks of a job that trains an explicit memory: its knowledge, the files it starts from, and its examples."""

from itertools import islice
from pathlib import Path

from pipeline.config import Config, MemoryConfig
from pipeline.data.omcq import read_knowledge, read_texts
from pipeline.data.sources import iter_rows
from pipeline.errors import ConfigError, DataError
from pipeline.models.hub import model_files
from pipeline.models.memory.files import Part, backbone_digest, check_fits, read_memory
from pipeline.models.memory.loading import check_room, warn_of_empty_slots
from pipeline.training.memory.examples import TARGET_FIELDS, read_targets

ROWS = 16
"""Training rows whose entries are looked up."""


def check_memory_files(config: Config, memory: MemoryConfig, model: Path, num_layers: int) -> None:
    """Raises GradusError if the knowledge, the router or the fusion cannot be read, or does not fit."""
    num_entries = _num_entries(config, memory)
    check_room(num_entries, memory)
    warn_of_empty_slots(num_entries, memory)
    parts: list[tuple[Part, str | None]] = [("router", memory.router_path), ("fusion", memory.fusion_path)]
    files = [(part, read_memory(Path(path))) for part, path in parts if path]
    digest = backbone_digest(model_files(model, with_code=config.model.trust_remote_code)) if files else ""
    for part, file in files:
        check_fits(file, memory, digest, num_layers, part)


def check_ids(config: Config) -> None:
    """Raises ConfigError if a stage needs the examples' entries and they have no ids to find them by."""
    if _needs_targets(config) and config.data.fields.id is None:
        raise ConfigError(
            "data.fields.id must be set for router stages and memory.selection=given, got none: an example's entry is "
            "found by its id. In the files of omcq-from-facts it is question_id."
        )


def check_targets(config: Config) -> None:
    """Raises DataError if one of the first training rows does not name its entry, and a stage needs it."""
    memory, id_field = config.memory, config.data.fields.id
    if memory is None or id_field is None or not _needs_targets(config):
        return
    num_entries = _num_entries(config, memory)
    for row in islice(iter_rows(config.data, config.data.train_split, optional=TARGET_FIELDS), ROWS):
        try:
            read_targets([row], id_field, num_entries)
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from None


def _needs_targets(config: Config) -> bool:
    is_given = config.memory is not None and config.memory.selection == "given"
    return is_given or any(stage.kind == "router" for stage in config.stages)


def _num_entries(config: Config, memory: MemoryConfig) -> int:
    read = read_knowledge if _needs_targets(config) else read_texts
    return len(read(Path(memory.knowledge)))
