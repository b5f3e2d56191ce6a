import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config import MemoryConfig, ModelConfig
from pipeline.errors import DataError, ModelError
from pipeline.models.memory import index as index_module
from pipeline.models.memory import loading
from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.entries import entry_token_ids
from pipeline.models.memory.files import read_memory
from pipeline.models.memory.index import build_index
from pipeline.models.memory.loading import MemoryModel, check_room, load_memory_model, warn_of_empty_slots
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.policy import saved_tensors
from tests.support.memories import PRESETS, memory_config
from tests.support.models import save_tiny_model, tiny_tokenizer

TEXTS = [f"entry {number} is {'abcdefg'[number % 7]}." for number in range(30)]
OTHERS = [f"fact {number} was {'hijklmn'[number % 7]}." for number in range(25)]
KEYS = {"routed": {"router.product_keys"}, "explicitlm": {"layers.product_keys"}}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def load(backbone, tmp_path) -> Any:
    def load(config: MemoryConfig, texts: list[str] = TEXTS, path: Path = backbone, **arguments: Any) -> MemoryModel:
        model = ModelConfig(name=str(path), dtype="float32", device="cpu")
        return load_memory_model(path, model, config, tiny_tokenizer(), texts, tmp_path / "cache", 0, **arguments)

    return load


def config_of(preset: str, **settings: Any) -> MemoryConfig:
    return memory_config(preset, knowledge_length=20, **settings)


@torch.no_grad()
def save_trained(model: MemoryModel, path: Path) -> Path:
    """As if after training: every parameter is another one."""
    for parameter in model.memory.parameters():
        parameter.add_(1.0)
    save_file(saved_tensors(model.backbone), path, model.memory.metadata)
    return path


def tensors(memory: ExplicitMemory) -> dict[str, Tensor]:
    return {**memory.state_dict(), "bank.token_ids": memory.bank.token_ids, "bank.embeddings": memory.bank.embeddings}


def changed(first: ExplicitMemory, second: ExplicitMemory) -> set[str]:
    """Names of the parts that differ, without numbers of layers: ``layers.memory_norm``, ``bank.token_ids``."""
    left, right = tensors(first), tensors(second)
    assert left.keys() == right.keys()
    names = [name for name in left if not torch.equal(left[name], right[name])]
    return {".".join([part for part in name.split(".") if not part.isdecimal()][:2]) for name in names}


def test_entries_are_tokenized_as_within_a_text_and_cut():
    ids, num_cut = entry_token_ids(tiny_tokenizer(), ["ab", " abcdef "], 4)
    encoded = tiny_tokenizer()(" abc", add_special_tokens=False)["input_ids"]
    assert ids.tolist() == [[*encoded[:3], PADDING], encoded]
    assert num_cut == 1 and ids.dtype == torch.int32


@pytest.mark.parametrize("count", [0, 37])
def test_a_bank_that_is_empty_or_too_small_is_refused(count):
    with pytest.raises(DataError, match=f"must have 1 to memory.knowledge_num=36 entries, got {count}"):
        check_room(count, memory_config())


def test_entries_that_are_cut_are_counted(load, caplog):
    with caplog.at_level(logging.WARNING):
        load(memory_config())
    assert "30 of 30 entries are longer than 6 tokens, and cut" in caplog.text


@pytest.mark.parametrize("preset", PRESETS)
def test_a_saved_memory_is_restored_with_its_slots_and_keys(load, tmp_path, preset):
    trained = load(config_of(preset))
    path = save_trained(trained, tmp_path / "memory_step_1.safetensors")
    restored = load(config_of(preset), file=read_memory(path))
    assert changed(restored.memory, trained.memory) == set()
    assert restored.memory.metadata == trained.memory.metadata


@pytest.mark.parametrize("preset", PRESETS)
def test_another_bank_gets_new_slots_in_the_saved_space(load, tmp_path, preset):
    trained = load(config_of(preset))
    path = save_trained(trained, tmp_path / "memory_step_1.safetensors")
    restored = load(config_of(preset), OTHERS, file=read_memory(path)).memory
    assert restored.bank.num_entries == 25
    assert torch.equal(restored.bank.space_matrix, trained.memory.bank.space_matrix)
    assert torch.equal(restored.bank.space_mean, trained.memory.bank.space_mean)
    entries = {"bank.entry_of_slot", "bank.token_ids"} | ({"bank.embeddings"} if preset == "routed" else set())
    assert changed(restored, trained.memory) == entries | KEYS[preset]


PARTS = {
    ("routed", "router_path"): {"router.memory_norm", "router.memory_gate", "router.pooling", "router.log_temperature"},
    ("routed", "fusion_path"): {"layers.memory_norm", "layers.memory_attention", "layers.gated_memory_fusion"},
    ("explicitlm", "router_path"): {"layers.memory_norm", "layers.memory_gate"},
    ("explicitlm", "fusion_path"): {"layers.memory_norm", "layers.gated_memory_fusion"},
}


@pytest.mark.parametrize(("preset", "setting"), PARTS)
def test_a_path_gives_its_part_alone_and_the_knowledge_space(load, tmp_path, preset, setting):
    trained, fresh = load(config_of(preset)), load(config_of(preset))
    path = save_trained(trained, tmp_path / "memory_step_1.safetensors")
    taken = load(config_of(preset, **{setting: str(path)})).memory
    own = PARTS[preset, setting] | KEYS[preset]
    assert changed(taken, fresh.memory) == own
    assert not changed(taken, trained.memory) & own


def test_both_paths_together_are_a_whole_memory(load, tmp_path):
    trained = load(config_of("routed"))
    path = str(save_trained(trained, tmp_path / "memory_step_1.safetensors"))
    both = load(config_of("routed", router_path=path, fusion_path=path)).memory
    assert changed(both, trained.memory) == set()


def test_a_memory_of_another_backbone_is_refused(load, tmp_path):
    path = save_trained(load(config_of("routed")), tmp_path / "memory_step_1.safetensors")
    other = save_tiny_model(tmp_path / "other", seed=1)
    for arguments in ({"file": read_memory(path)}, {}):
        config = config_of("routed", **({} if arguments else {"router_path": str(path)}))
        with pytest.raises(ModelError, match="must be loaded onto the backbone it was trained with"):
            load(config, path=other, **arguments)


def test_the_knowledge_cache_is_computed_once(load, monkeypatch):
    built = []

    def counted(*arguments: Any) -> Any:
        built.append(len(arguments[0]))
        return build_index(*arguments)

    monkeypatch.setattr(loading, "build_index", counted)
    first = load(config_of("routed"))
    again = load(config_of("routed"))
    assert built == [30]
    assert changed(first.memory, again.memory) == set()
    load(config_of("routed", recompute_cache=True))
    load(config_of("routed"), OTHERS)
    assert built == [30, 30, 25]


def test_the_backbone_is_frozen_and_as_it_was(load, backbone):
    from safetensors.torch import load_file

    model = load(config_of("explicitlm")).backbone
    weights, own = load_file(backbone / "model.safetensors"), model.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in weights.items())
    assert not any(p.requires_grad for name, p in model.named_parameters() if not name.startswith("explicit_memory."))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("other", ["seed", "dtype", "code"])
def test_the_same_entries_keep_their_slots_and_trained_keys(
    backbone, load, tmp_path, monkeypatch, caplog, preset, other
):
    trained = load(config_of(preset))
    file = read_memory(save_trained(trained, tmp_path / "memory_step_1.safetensors"))
    if other == "code":
        monkeypatch.setattr(index_module, "code_digest", lambda *files: "newer")
    model = ModelConfig(name=str(backbone), dtype="bfloat16" if other == "dtype" else "float32", device="cpu")
    seed = 1 if other == "seed" else 0
    arguments: Any = (backbone, model, config_of(preset), tiny_tokenizer(), TEXTS, tmp_path / "cache", seed, file)
    restored = load_memory_model(*arguments)
    assert changed(restored.memory, trained.memory) <= {"bank.embeddings"}  # these are of the backbone's dtype
    assert restored.memory.metadata == trained.memory.metadata
    assert "another bank" not in caplog.text


def test_a_memory_names_its_entries_by_their_tokens(load):
    token_ids, _ = entry_token_ids(tiny_tokenizer(), TEXTS, 20)
    named = json.loads(load(config_of("routed")).memory.metadata["memory"])["knowledge"]
    assert named == hashlib.sha256(token_ids.numpy().tobytes()).hexdigest()


def test_another_bank_is_warned_about(load, tmp_path, caplog):
    path = save_trained(load(config_of("routed")), tmp_path / "memory_step_1.safetensors")
    load(config_of("routed"), OTHERS, file=read_memory(path))
    assert f"{path} has another bank: slots and product keys are computed anew" in caplog.text


def test_nothing_that_a_checkpoint_holds_is_read_or_computed(load, monkeypatch):
    monkeypatch.setattr(loading, "build_index", lambda *arguments: pytest.fail("built"))
    paths = {"router_path": "missing", "fusion_path": "missing"}
    memory = load(config_of("routed", **paths), pretrained=False).memory
    assert memory.bank.num_entries == 30


def test_a_fusion_fits_a_bank_and_a_gate_of_another_form(load, tmp_path):
    trained = load(config_of("routed"))
    path = save_trained(trained, tmp_path / "memory_step_1.safetensors")
    other = config_of("routed", knowledge_dim=8, knowledge_num=49, gate_rank=4, fusion_path=str(path), layers=[0, 1])
    taken, fused = load(other).memory.state_dict(), trained.memory.state_dict()
    names = [name for name in fused if name.startswith("layers.")]
    assert names and all(torch.equal(taken[name], fused[name]) for name in names)


def test_a_router_of_layers_fits_the_same_layers_alone(load, tmp_path):
    path = save_trained(load(config_of("explicitlm", layers=[1])), tmp_path / "memory_step_1.safetensors")
    load(config_of("explicitlm", layers=[1], fusion_rank=4, router_path=str(path)))
    with pytest.raises(ModelError, match=r"got layers \[1\], not None"):
        load(config_of("explicitlm", router_path=str(path)))


@pytest.mark.parametrize(
    ("count", "candidates", "fitting"), [(17, 8, 25), (16, 8, 16), (3, 8, 9), (18, 8, None), (3, 36, None)]
)
def test_a_bank_of_mostly_empty_slots_is_warned_about(count, candidates, fitting, caplog):
    """The bank has 36 slots."""
    warn_of_empty_slots(count, memory_config(num_candidates=candidates))
    assert [record.getMessage().rpartition("Lower ")[2] for record in caplog.records] == (
        [f"memory.knowledge_num to {fitting}"] if fitting else []
    )


def test_a_new_memory_warns_of_empty_slots_and_a_trained_one_does_not(load, tmp_path, caplog):
    path = save_trained(load(config_of("routed", knowledge_num=64)), tmp_path / "memory_step_1.safetensors")
    assert "fills 30 of 64 slots" in caplog.text
    caplog.clear()
    load(config_of("routed", knowledge_num=64), file=read_memory(path))
    assert "slots" not in caplog.text
