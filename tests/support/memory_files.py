"""Questions, knowledge and a run with a memory, as files."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from pipeline.config import Config
from pipeline.files import write_jsonl
from pipeline.models.memory.loading import load_memory_model
from pipeline.models.policy import saved_tensors
from pipeline.models.tokenizer import load_tokenizer
from pipeline.runs.directory import RunDirectory
from tests.support.memory_models import memory_config, open_fusion
from tests.support.memory_questions import KNOWLEDGE, QUESTIONS
from tests.support.models import save_tiny_model


def write_questions(folder: Path) -> Path:
    """test.jsonl and knowledge.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "test.jsonl", [asdict(question) for question in QUESTIONS])
    write_jsonl(folder / "knowledge.jsonl", [asdict(entry) for entry in KNOWLEDGE])
    return folder


def write_memory_run(folder: Path, preset: str = "routed", **settings: Any) -> RunDirectory:
    """A finished run whose memory changes what its tiny backbone writes. Its data is in ``folder / "data"``."""
    data = write_questions(folder / "data")
    save_tiny_model(folder / "model")
    memory = memory_config(preset, knowledge=str(data / "knowledge.jsonl"), num_candidates=16, **settings)
    config = Config.model_validate(
        {
            "model": {"name": str(folder / "model"), "dtype": "float32", "device": "cpu"},
            "memory": memory.model_dump(),
            "data": {"name": str(data)},
            "eval": {"problems_per_level": 0},
            "stages": [{"name": "fusion", "kind": "memory_sft"}],
            "output": {"root": str(folder)},
        }
    )
    run = RunDirectory.create_at(folder / "run", config)
    tokenizer = load_tokenizer(folder / "model", config.model)
    texts = [entry.text for entry in KNOWLEDGE]
    loaded = load_memory_model(folder / "model", config.model, memory, tokenizer, texts, folder / "cache", 0)
    open_fusion(loaded.memory)
    run.final_memory.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in saved_tensors(loaded.backbone).items()}
    save_file(tensors, run.final_memory / "memory_step_3.safetensors", loaded.memory.metadata)
    return run
