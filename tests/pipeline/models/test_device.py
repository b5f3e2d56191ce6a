import logging

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models.device import choose_dtype, pick_device, torch_dtype


def test_an_unavailable_device_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has cuda")
    with pytest.raises(ModelError, match=r"model\.device .* got cuda: torch sees .*cpu"):
        pick_device(ModelConfig(device="cuda"))


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_a_gpu(monkeypatch, has_cuda, has_mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert pick_device(ModelConfig()).type == expected
    assert pick_device(ModelConfig(device="cpu")).type == "cpu"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True}, "bfloat16"),
        ({"architecture": "aarch64", "bf16": True}, "bfloat16"),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_matmul_is_native(monkeypatch, caplog, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto") == expected and choose_dtype("float32") == "float32"
    assert choose_dtype("auto", on_gpu=True) == "bfloat16"
    assert torch_dtype("auto") == getattr(torch, expected)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert choose_dtype("bfloat16") == "bfloat16"
    assert bool(caplog.records) == (expected == "float32")  # slow, but the user's choice
