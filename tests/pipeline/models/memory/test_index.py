from pathlib import Path

import pytest
import torch

from pipeline.models.memory import index as index_module
from pipeline.models.memory.attach import attach_memory
from pipeline.models.memory.index import KnowledgeIndex, build_index, cached_index, index_digest, use_index
from tests.support.memories import layer_of, memory_config, random_entries
from tests.support.models import tiny_llama

EMBEDDING = torch.randn(259, 8, generator=torch.Generator().manual_seed(0))


class Building:
    """Counts how often the index is built."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> KnowledgeIndex:
        self.count += 1
        return build_index(random_entries(20), EMBEDDING, side=5, dim=4, seed=0)


def assert_same(first: KnowledgeIndex, second: KnowledgeIndex) -> None:
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(second, name)), name


def test_the_cache_is_built_once_and_reused(tmp_path):
    build = Building()
    first = cached_index(tmp_path / "new", "abc", build)
    again = cached_index(tmp_path / "new", "abc", build)
    assert build.count == 1
    assert_same(first, again)
    cached_index(tmp_path / "new", "other", build)
    assert build.count == 2


def test_it_is_built_again_on_demand(tmp_path):
    build = Building()
    for _ in range(2):
        cached_index(tmp_path, "abc", build, recompute=True)
    assert build.count == 2


@pytest.mark.parametrize("size", [0, 5, 300, -20])
def test_a_file_that_was_cut_short_is_built_again(tmp_path, size):
    build = Building()
    first = cached_index(tmp_path, "abc", build)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:size])
    assert_same(cached_index(tmp_path, "abc", build), first)
    assert build.count == 2


def test_a_build_that_fails_leaves_no_file(tmp_path):
    def fail() -> KnowledgeIndex:
        raise MemoryError

    with pytest.raises(MemoryError):
        cached_index(tmp_path, "abc", fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_the_digest_changes_with_entries_embedding_settings_and_code(monkeypatch):
    entries = random_entries(3)
    digests = {
        index_digest([entries, EMBEDDING], 4, 5, 0),
        index_digest([entries.flip(0), EMBEDDING], 4, 5, 0),
        index_digest([entries, EMBEDDING + 1], 4, 5, 0),
        index_digest([entries, EMBEDDING.bfloat16()], 4, 5, 0),
        index_digest([entries, EMBEDDING], 4, 5, 1),
    }
    monkeypatch.setattr(index_module, "code_digest", lambda *files: "newer")
    digests.add(index_digest([entries, EMBEDDING], 4, 5, 0))
    assert len(digests) == 6
    assert index_digest([entries, EMBEDDING], 4, 5, 0) in digests


def test_the_index_fills_the_bank_and_all_keys(tmp_path: Path):
    model, entries = tiny_llama(), random_entries(30)
    memory = attach_memory(model, memory_config(), seed=0)
    index = build_index(entries, memory.embedding, side=6, dim=16, seed=0)
    use_index(memory, index, entries)
    assert torch.equal(memory.bank.tokens(index.slot_of_entry), entries)
    assert torch.equal(memory.bank.slot_of_entry(), index.slot_of_entry)
    assert int((memory.bank.entry_of_slot < 0).sum()) == 36 - 30
    for number in (0, 1):
        keys = layer_of(memory, number).product_keys
        assert torch.equal(keys.rows, index.rows) and torch.equal(keys.columns, index.columns)
