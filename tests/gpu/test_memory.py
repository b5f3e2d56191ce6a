"""Memory of a learner's tensors against the estimate that ``--dry-run`` prints."""

import gc

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.config import LoraConfig, ModelConfig
from pipeline.models.attention import use_causal_sdpa
from pipeline.models.compute_copies import computing_in
from pipeline.models.memory_estimate import ModelShape, learner_memory
from pipeline.training.batching import micro_batches
from pipeline.training.sft import token_losses
from tests.gpu.conftest import NEEDS_GPU
from tests.support.learner_steps import adamw, sft_step
from tests.support.sequences import sequence

SHAPES = {
    "cpu": ModelShape(hidden=64, intermediate=160, num_layers=4, queries=64, keys=32, vocab=1000, is_tied=True),
    "cuda": ModelShape(hidden=512, intermediate=1408, num_layers=8, queries=512, keys=256, vocab=16384, is_tied=True),
}
NUM_TOKENS = {"cpu": 1200, "cuda": 4096}
SETTINGS = {
    "full": ModelConfig(dtype="bfloat16"),
    "float32": ModelConfig(dtype="float32"),
    "bfloat16 masters": ModelConfig(dtype="bfloat16", master_dtype="bfloat16"),
    "lora": ModelConfig(dtype="bfloat16", lora=LoraConfig(r=8)),
}


def policy(shape: ModelShape, settings: ModelConfig, device: torch.device):
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.queries // 32,
        num_key_value_heads=shape.keys // 32,
        tie_word_embeddings=shape.is_tied,
    )
    base = settings.dtype if settings.lora else settings.master_dtype
    model = LlamaForCausalLM(config).to(device, getattr(torch, base)).train()
    if settings.lora:
        targets = settings.lora.target_modules
        model = get_peft_model(model, PeftLoraConfig(r=settings.lora.r, target_modules=targets))
        for parameter in model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    use_causal_sdpa(model)
    return model


def examples(num_tokens: int):
    """Two rows' worth of completions after prompts of one token: every token is a target, as in the estimate."""
    return [sequence(1, num_tokens // 2 - 1, seed) for seed in range(4)]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_forward_pass_keeps_what_was_planned(device, name):
    if device.type == "cuda" and name == "float32":
        pytest.skip("what float32 attention keeps on a GPU depends on the version of torch")
    shape, settings, num_tokens = SHAPES[device.type], SETTINGS[name], NUM_TOKENS[device.type]
    model, dtype = policy(shape, settings, device), getattr(torch, settings.dtype)
    batch = micro_batches(examples(num_tokens), num_tokens, device, packing=True)[0]
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with computing_in(model, dtype), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        token_losses(model, batch, dtype)[0].sum()
    plan = learner_memory(shape, settings, num_tokens, on_gpu=device.type == "cuda")
    planned = plan.activations + num_tokens * shape.vocab * dtype.itemsize
    assert 0.93 < sum(each.nbytes() for address, each in kept.items() if address not in weights) / planned < 1.1


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "float32"])
def test_the_peak_of_a_step_is_what_was_planned(name):
    shape, settings, num_tokens = SHAPES["cuda"], SETTINGS[name], NUM_TOKENS["cuda"]
    gc.collect()  # models of other tests
    before = torch.cuda.memory_allocated()
    model, dtype = policy(shape, settings, torch.device("cuda")), getattr(torch, settings.dtype)
    optimizer = adamw(model, 1e-4)
    for _ in range(2):  # from the second step on there are moments
        torch.cuda.reset_peak_memory_stats()
        sft_step(model, optimizer, examples(num_tokens), dtype=dtype, max_tokens=num_tokens)
    plan = learner_memory(shape, settings, num_tokens, on_gpu=True)
    assert 0.8 < (torch.cuda.max_memory_allocated() - before) / plan.total < 1.2, plan.describe()
