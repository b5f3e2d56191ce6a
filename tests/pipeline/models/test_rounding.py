import pytest
import torch
from torch import nn

from pipeline.config import LoraConfig, ModelConfig
from pipeline.models import policy
from pipeline.models.pissa import lora_layers
from pipeline.models.policy import load_policy, merged_weights, trainable_tensors
from pipeline.models.rounding import UpdateSample, round_stochastically, rounding_seed
from tests.support.models import save_tiny_model

ULP = 2.0**-7
"""Distance of bfloat16 numbers from 1 to 2."""


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_becomes_one_of_its_neighbours_and_is_right_on_average(sign):
    value = sign * (1 + ULP / 8)
    rounded = round_stochastically(torch.full((400, 250), value), seed=0)
    assert rounded.dtype == torch.bfloat16
    assert set(rounded.unique().tolist()) == {sign * 1.0, sign * (1 + ULP)}
    share = (rounded != sign).float().mean().item()
    assert share == pytest.approx(1 / 8, abs=0.004)  # four standard deviations: 4 sqrt(1/8 x 7/8 / 100,000)


def test_values_that_bfloat16_has_stay_as_they_are():
    values = torch.tensor([0.0, -0.0, 1.0, -1.5, 3.0e38, 1e-40, float("inf")]).bfloat16()
    assert torch.equal(round_stochastically(values.float(), seed=1), values)


def test_the_seed_and_nothing_else_decides():
    values = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_stochastically(values, 1), round_stochastically(values.clone(), 1))
    assert not torch.equal(round_stochastically(values, 1), round_stochastically(values, 2))
    assert len({rounding_seed(run, step) for run in (0, 1) for step in (0, 1)}) == 4


def adapted(path, magnitude: float, **config):
    """A bfloat16 model whose adapters were trained to |B| = magnitude."""
    lora = LoraConfig(r=4, alpha=8)
    torch.manual_seed(0)  # of the adapters' A
    model = load_policy(path, ModelConfig(name="tiny", device="cpu", dtype="bfloat16", lora=lora, **config))
    sample = UpdateSample(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in trainable_tensors(model).items():
            if ".lora_B." in name:
                tensor.copy_(magnitude * torch.randn(tensor.shape, generator=generator))
    return model, sample


@pytest.mark.parametrize("magnitude", [1e-5, 1e-4])
def test_engines_see_an_adapter_that_is_smaller_than_the_precision_of_the_weights(tmp_path, magnitude):
    """The visible share is <what arrived, update> / <update, update>, over all adapted weights."""
    model, sample = adapted(save_tiny_model(tmp_path), magnitude)
    base = dict(merged_weights(adapted(tmp_path, 0.0)[0], torch.float32))
    exact = dict(merged_weights(model, torch.float32))

    def visible(seed: int | None) -> float:
        arrived = dict(merged_weights(model, torch.bfloat16, seed))
        pairs = [(arrived[name].float() - base[name], exact[name] - base[name]) for name in exact]
        return sum((a * u).sum().item() for a, u in pairs) / sum((u * u).sum().item() for _, u in pairs)

    assert visible(None) < 0.25
    assert sample.visible_frac(torch.bfloat16, None) == pytest.approx(visible(None), abs=0.1)
    seeds = range(16)  # one alone has a standard deviation of up to 0.2
    assert sum(map(visible, seeds)) / len(seeds) == pytest.approx(1, abs=0.2)
    fracs = [sample.visible_frac(torch.bfloat16, seed) for seed in seeds]
    assert sum(frac or 0.0 for frac in fracs) / len(seeds) == pytest.approx(1, abs=0.2)


def test_only_weights_with_an_adapter_are_rounded_at_random(tmp_path):
    model, _ = adapted(save_tiny_model(tmp_path), 1e-3)
    nearest, random = (dict(merged_weights(model, torch.bfloat16, seed)) for seed in (None, 0))
    different = {name for name in nearest if not torch.equal(nearest[name], random[name])}
    assert different and all("_proj" in name for name in different)
    again = dict(merged_weights(model, torch.bfloat16, 0))
    assert all(torch.equal(again[name], random[name]) for name in random)


@pytest.mark.parametrize(("update", "visible"), [(ULP / 4, 0.0), (ULP, 1.0), (3 * ULP / 4, 4 / 3)])
def test_without_adapters_the_share_is_that_of_the_nearest_values(update, visible):
    model = nn.Linear(3, 2, bias=False)
    nn.init.ones_(model.weight)
    sample = UpdateSample(model)
    assert sample.metrics(torch.bfloat16, 0) == {}  # there is no update yet
    model.weight.data += update
    assert sample.metrics(torch.bfloat16, 0) == {"visible_update_frac": pytest.approx(visible)}
    assert sample.metrics(torch.float32, 0) == {}  # nothing is rounded
    assert sample.record(torch.bfloat16, 0)["rounding"] == "nearest"


def test_adapters_that_add_nothing_yet_leave_the_bits_of_the_sum(tmp_path, monkeypatch):
    lora = LoraConfig(r=4, alpha=8)
    model = load_policy(save_tiny_model(tmp_path), ModelConfig(name="tiny", device="cpu", dtype="bfloat16", lora=lora))
    for layer in lora_layers(model).values():
        layer.get_base_layer().weight.data[0, 0] = -0.0
    quick = dict(merged_weights(model, torch.bfloat16, seed=1))
    monkeypatch.setattr(policy, "adds_nothing", lambda layer: False)
    summed = dict(merged_weights(model, torch.bfloat16, seed=1))
    assert all(torch.equal(quick[name].view(torch.int16), summed[name].view(torch.int16)) for name in summed)
