import pytest
import torch
from torch import nn

from pipeline.config import LoraConfig, ModelConfig, SFTConfig
from pipeline.models.memory.modules import EntryAttention
from pipeline.models.memory.product_keys import ProductKeys
from pipeline.models.policy import load_policy, trainable_tensors
from pipeline.training.optimizer import adamw, load_moments, moments, undecayed
from tests.support.models import save_tiny_model, tiny_llama

DECAYING = SFTConfig(learning_rate=0.1, weight_decay=0.5)


class Mixed(nn.Module):
    """An embedding, a matrix with a bias, and a norm, all 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.norm = nn.Embedding(2, 2), nn.Linear(2, 2), nn.LayerNorm((2, 2))
        for parameter in self.parameters():
            nn.init.ones_(parameter)


def update(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], gradient: float) -> None:
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


def test_only_matrices_decay():
    model = Mixed()
    tensors = trainable_tensors(model)
    update(adamw(model, tensors, DECAYING), list(tensors.values()), 0.0)
    ones = {name for name, tensor in tensors.items() if torch.equal(tensor.data, torch.ones_like(tensor))}
    assert ones == {"embed.weight", "layer.bias", "norm.weight", "norm.bias"}
    torch.testing.assert_close(model.layer.weight.data, torch.full((2, 2), 0.95))  # 1 - 0.1 x 0.5


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_keeps_its_norms_and_embeddings(tied):
    spared = undecayed(tiny_llama(tie_word_embeddings=tied))
    assert {name.split(".")[-2] for name in spared} == {
        "embed_tokens",
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }


def test_both_factors_of_an_adapter_decay(tmp_path):
    lora = LoraConfig(r=2, alpha=4, target_modules=["q_proj"])
    model = load_policy(save_tiny_model(tmp_path), ModelConfig(name="tiny", device="cpu", dtype="float32", lora=lora))
    (group,) = adamw(model, trainable_tensors(model), DECAYING).param_groups
    assert (len(group["params"]), group["weight_decay"]) == (4, 0.5)


@pytest.mark.parametrize(("dtype", "num_warnings"), [(torch.float32, 0), (torch.bfloat16, 1)])
def test_weights_that_an_update_is_too_small_for_are_warned_about(dtype, num_warnings, caplog):
    model = Mixed().to(dtype)  # all 1: in bfloat16 the next number is 0.0078 away
    adamw(model, trainable_tensors(model), SFTConfig(learning_rate=1e-3))
    assert [record.getMessage()[:11] for record in caplog.records] == ["100 % of th"] * num_warnings


def test_moments_find_their_parameters_whatever_the_groups():
    """A checkpoint of one group, as before there were several, goes into two groups and back."""
    torch.manual_seed(0)
    model, other = Mixed(), Mixed()
    tensors, others = trainable_tensors(model), trainable_tensors(other)
    single = torch.optim.AdamW(tensors.values(), lr=0.1)
    for parameter in tensors.values():
        parameter.grad = torch.randn_like(parameter)
    single.step()
    saved = single.state_dict()["state"]
    grouped = adamw(other, others, DECAYING)
    assert len(grouped.param_groups) == 2
    load_moments(grouped, list(others.values()), saved)
    for parameter, own in zip(tensors.values(), others.values(), strict=True):
        assert torch.equal(grouped.state[own]["exp_avg"], single.state[parameter]["exp_avg"])
    back = moments(grouped, list(others.values()))
    assert all(torch.equal(back[index]["exp_avg_sq"], saved[index]["exp_avg_sq"]) for index in saved)


def test_positions_of_an_entry_and_product_keys_do_not_decay():
    model = nn.ModuleDict({"attention": EntryAttention(4, 2, 3), "product_keys": ProductKeys(2, 4)})
    assert undecayed(model) == {"attention.position", "product_keys.rows", "product_keys.columns"}
