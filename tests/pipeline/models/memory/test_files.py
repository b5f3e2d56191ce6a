import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError, ModelError
from pipeline.models.memory.files import Part, backbone_digest, check_fits, describe, differences, read_memory
from tests.support.memories import memory_config

CONFIG = memory_config(knowledge_num=36)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory_step_3.safetensors"
    save_file({"explicit_memory.x": torch.arange(3.0)}, path, describe(CONFIG, "beef", "cafe"))
    return path


def test_a_memory_is_read_as_it_was_written(file):
    read = read_memory(file)
    assert (read.path, read.config, read.backbone, read.knowledge) == (file, CONFIG, "beef", "cafe")
    assert read.tensors["explicit_memory.x"].tolist() == [0.0, 1.0, 2.0]
    check_fits(read, CONFIG, "beef", 2)


def test_the_same_memory_is_the_same_file(file, tmp_path):
    for number in range(20):
        again = tmp_path / f"again_{number}.safetensors"
        save_file({"explicit_memory.x": torch.arange(3.0)}, again, describe(CONFIG, "beef", "cafe"))
        assert again.read_bytes() == file.read_bytes()


def test_another_backbone_is_refused(file):
    message = "must be loaded onto the backbone it was trained with, beef, got feed: .* Set model.name to that backbone"
    with pytest.raises(ModelError, match=message):
        check_fits(read_memory(file), CONFIG, "feed", 2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"knowledge_num": 49}, "knowledge_num 36, not 49"),
        ({"layers": [1]}, r"layers None, not \[1\]"),
        ({"gate_rank": None, "fusion_rank": 4}, "gate_rank 8, not None, fusion_rank 8, not 4"),
        ({"preset": "routed", "gate_rank": 8}, "query token, not pooled, decode mean, not attention"),
    ],
)
def test_another_form_is_refused_and_named(file, settings, named):
    with pytest.raises(ModelError, match=rf"must have the form of memory in the configuration, got {named}"):
        check_fits(read_memory(file), memory_config(**settings), "beef", 2)


def test_settings_that_only_training_reads_may_differ(file):
    others: dict[str, Any] = {
        "knowledge": "other",
        "similarity_loss_coef": 0.5,
        "num_candidates": 4,
        "gumbel_temperature": 2.0,
    }
    saved = read_memory(file)
    check_fits(saved, memory_config(**others), "beef", 2)
    assert not differences(saved.config, memory_config(**others), 2, "whole")


def unreadable(directory, name):
    path = directory / f"{name}.safetensors"
    whole = json.loads(describe(CONFIG, "beef", "cafe")["memory"])
    if name == "garbage":
        path.write_bytes(b"garbage")
    elif name == "plain":
        save_file({"x": torch.zeros(1)}, path)
    elif name == "cut":
        save_file({"x": torch.zeros(100)}, path, {"memory": json.dumps(whole)})
        path.write_bytes(path.read_bytes()[:-8])
    elif name != "missing":
        texts = {
            "no_json": "{",
            "list": "[1]",
            "unknown_setting": json.dumps(whole | {"config": {"knowledge": "k", "colour": 1}}),
            "no_backbone": json.dumps({key: value for key, value in whole.items() if key != "backbone"}),
        }
        save_file({"x": torch.zeros(1)}, path, {"memory": texts[name]})
    return path


@pytest.mark.parametrize(
    "name", ["missing", "garbage", "plain", "no_json", "list", "unknown_setting", "no_backbone", "cut", "directory"]
)
def test_what_is_not_a_memory_is_refused(tmp_path, name):
    path = tmp_path if name == "directory" else unreadable(tmp_path, name)
    with pytest.raises(CheckpointError, match=r"must be a file memory_step_N.safetensors of a run: .+\.$") as caught:
        read_memory(path)
    assert "\n" not in str(caught.value)


def test_a_backbone_is_its_weights_whatever_the_files_are_called():
    digest = backbone_digest({"model.safetensors": "1", "config.json": "2"})
    assert digest == backbone_digest({"other.safetensors": "1", "config.json": "3"})
    assert digest != backbone_digest({"model.safetensors": "2", "config.json": "2"})
    assert len(digest) == 16


PARTS: tuple[Part, ...] = ("whole", "router", "fusion")


@pytest.mark.parametrize(
    ("setting", "value", "refused_by"),
    [
        ("knowledge_num", 49, ("whole", "router")),
        ("knowledge_dim", 8, ("whole", "router")),
        ("knowledge_length", 5, PARTS),
        ("gate_rank", 4, ("whole", "router")),
        ("fusion_rank", 4, ("whole", "fusion")),
        ("layers", [1], PARTS),
        ("layers", [0, 1], ()),
        ("layers", [1, 0, 1], ()),
    ],
)
def test_a_part_has_the_form_of_its_own_settings(file, setting, value, refused_by):
    """The memory has a query for each token, so its router has a gate in each of the backbone's two layers."""
    config = memory_config(**{setting: value})
    refused = [part for part in PARTS if differences(CONFIG, config, 2, part)]
    assert tuple(refused) == refused_by


def test_the_router_of_whole_prompts_has_no_layers():
    own, wanted = (memory_config("routed", layers=layers) for layers in (None, [1]))
    assert differences(own, wanted, 2, "router") == []
    assert differences(own, wanted, 2, "fusion") == ["layers None, not [1]"]
