"""Spectral refactoring: what must stay the same, on small random pairs and a tiny peft model."""

import json
from dataclasses import asdict

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipeline.config import TrainerConfig
from pipeline.errors import ModelError
from pipeline.models.policy import trainable_tensors
from pipeline.training.lora_factors import refactor_pair
from pipeline.training.spectral import (
    AdapterPair,
    SpectralRefactorer,
    balance_at,
    due_steps,
    find_pairs,
    refactor_adapters,
    select_pairs,
)
from tests.support.models import tiny_llama

D_OUT, D_IN, R = 24, 16, 6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(kind):
    b, a = random(D_OUT, R, seed=1), random(R, D_IN, seed=2)
    if kind == "rank-deficient":
        b = random(D_OUT, 3, seed=3) @ random(3, R, seed=4)
    elif kind == "small":  # as after a few steps from 0, its columns of very different lengths
        b = b * 1e-3 * torch.logspace(0, -4, R)
    elif kind == "zero":
        b = torch.zeros_like(b)
    elif kind == "more columns than rows":
        b = b[:4]
    return b, a


KINDS = ["random", "rank-deficient", "small", "zero", "more columns than rows"]


def refactored(b, a, **settings):
    new = refactor_pair(b, a, **settings)
    assert new is not None
    return new


def trained(kind, dtype=torch.float32, **settings):
    """A pair with an AdamW that holds random moments of it."""
    b, a = (torch.nn.Parameter(factor.to(dtype)) for factor in factors(kind))
    optimizer = torch.optim.AdamW([b, a], lr=0.01, weight_decay=0.0)
    for parameter in (b, a):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for seed, parameter in enumerate((b, a)):
        optimizer.state[parameter]["exp_avg"].copy_(random(*parameter.shape, seed=5 + seed))
        optimizer.state[parameter]["exp_avg_sq"].copy_(random(*parameter.shape, seed=7 + seed).square())
    return AdapterPair("layer", b, a), optimizer, TrainerConfig(**settings)


def movement(pair, optimizer):
    """m_B A + B m_A, in float64."""
    m_b, m_a = (optimizer.state[parameter]["exp_avg"].double() for parameter in (pair.b, pair.a))
    return m_b @ pair.a.detach().double() + pair.b.detach().double() @ m_a


def product(pair):
    return pair.b.detach().double() @ pair.a.detach().double()


def relative_error(new, old):
    return ((new - old).norm() / old.norm().clamp(min=1e-30)).item()


# What is preserved -------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_mode_leaves_the_product_and_its_movement_unchanged(kind, damping):
    pair, optimizer, settings = trained(kind, damping=damping)
    old, moving, b = product(pair), movement(pair, optimizer), pair.b.detach().clone()
    report = refactor_adapters([pair], optimizer, settings)
    assert (len(report.pairs), report.skipped) == (1, [])
    assert relative_error(product(pair), old) < 1e-5
    assert relative_error(movement(pair, optimizer), moving) < 1e-5
    assert kind == "zero" or not torch.allclose(pair.b, b)


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_mode_leaves_the_movement_and_the_nuclear_norm_unchanged(kind):
    pair, optimizer, settings = trained(kind)
    old, moving = product(pair), movement(pair, optimizer)
    refactor_adapters([pair], optimizer, settings, balance=0.5)
    assert relative_error(movement(pair, optimizer), moving) < 1e-5
    before, after = torch.linalg.svdvals(old), torch.linalg.svdvals(product(pair))
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=1e-5)
    if kind != "zero":
        assert relative_error(product(pair), old) > 0.01


# Adam --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_is_longer_than_ten_learning_rates_because_of_the_change(kind):
    pair, optimizer, settings = trained(kind)
    optimizer.param_groups[0]["betas"] = (1.0 - 1e-9, 1.0 - 1e-9)  # what the moments alone do
    for parameter in (pair.b, pair.a):
        optimizer.state[parameter]["step"].fill_(1e12)  # no bias correction
    refactor_adapters([pair], optimizer, settings)
    before = pair.b.detach().clone(), pair.a.detach().clone()
    optimizer.step()  # gradients are 0
    for old, new in zip(before, (pair.b, pair.a), strict=True):
        assert 0 < (new - old).abs().max() < 0.101


def test_first_moments_are_cleared_on_request():
    pair, optimizer, settings = trained("random", first_moments="clear")
    refactor_adapters([pair], optimizer, settings)
    for parameter in (pair.b, pair.a):
        state = optimizer.state[parameter]
        assert not state["exp_avg"].any() and (state["exp_avg_sq"] > 0).all()


# Pairs that cannot be refactored -------------------------------------------------------------------


def broken(a):
    a[2] = a[1]
    return a


@pytest.mark.parametrize("spoil", [broken, torch.zeros_like, lambda a: a * torch.nan, lambda a: a[:, : R - 1]])
def test_a_rank_deficient_or_not_finite_a_is_skipped_and_counted(spoil):
    good, optimizer, settings = trained("random")
    b, a = factors("random")
    bad = AdapterPair("bad", b, spoil(a.clone()))
    before = bad.a.clone()
    report = refactor_adapters([bad, good], optimizer, settings)
    assert (report.skipped, [pair.layer for pair in report.pairs]) == (["bad"], ["layer"])
    assert report.metrics()["spectral_num_skipped"] == 1
    torch.testing.assert_close((bad.a, bad.b), (before, b), rtol=0, atol=0, equal_nan=True)


# Precision and determinism -------------------------------------------------------------------------


def test_bf16_parameters_keep_their_type_and_the_product_to_its_precision():
    pair, optimizer, settings = trained("random", dtype=torch.bfloat16)
    old = product(pair)
    refactor_adapters([pair], optimizer, settings)
    assert pair.b.dtype == optimizer.state[pair.b]["exp_avg"].dtype == torch.bfloat16
    assert relative_error(product(pair), old) < 2**-8


@pytest.mark.parametrize("kind", KINDS)
def test_equal_inputs_give_equal_bits_and_a_second_time_changes_nothing(kind):
    runs = []
    for _ in range(2):
        pair, optimizer, settings = trained(kind)
        refactor_adapters([pair], optimizer, settings)
        runs.append([pair.b, pair.a, *(optimizer.state[p]["exp_avg_sq"] for p in (pair.b, pair.a))])
    assert all(torch.equal(*both) for both in zip(*runs, strict=True))
    if kind == "random":  # only signs could differ, and they are fixed
        repeated = refactored(pair.b, pair.a)
        torch.testing.assert_close((repeated.b, repeated.a), (pair.b.double(), pair.a.double()), rtol=0, atol=1e-5)


# Schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "warmup", "cooldown", "total", "expected"),
    [
        (10, 0, 0, 35, [10, 20, 30]),
        (10, 20, 0, 40, [20, 30, 40]),  # a step at the end of warm-up or at the start of cool-down counts
        (10, 21, 10, 50, [30, 40]),
        (10, 0, 11, 50, [10, 20, 30]),
        (100, 100, 100, 150, []),
        (1, 0, 5, 3, []),
    ],
)
def test_due_steps_lie_between_warmup_and_cooldown(every, warmup, cooldown, total, expected):
    settings = TrainerConfig(refactor_every=every, warmup_steps=warmup, cooldown_steps=cooldown)
    assert list(due_steps(settings, total)) == expected


def test_lambda_grows_linearly_to_one():
    settings = TrainerConfig(mode="balanced", lambda_start=0.2)
    assert [balance_at(settings, step, 40) for step in (0, 10, 40)] == pytest.approx([0.2, 0.4, 1.0])
    assert balance_at(TrainerConfig(lambda_start=0.2), 10, 40) == 0


# peft --------------------------------------------------------------------------------------------


def peft_llama(**settings):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=24, target_modules=["q_proj", "down_proj"], **settings)
    return get_peft_model(tiny_llama(), config)


def test_pairs_of_a_peft_model_are_found_by_name_and_chosen_by_name_and_size():
    pairs = find_pairs(trainable_tensors(peft_llama()))
    q, down = "self_attn.q_proj", "mlp.down_proj"
    assert [p.layer for p in pairs] == [f"model.layers.{i}.{name}" for i in (0, 1) for name in (q, down)]
    assert [(p.b.shape, p.a.shape) for p in pairs[:2]] == [((64, 4), (4, 64)), ((64, 4), (4, 96))]

    def chosen(**settings):
        return [pairs.index(pair) for pair in select_pairs(pairs, TrainerConfig(**settings))]

    assert chosen() == [0, 1, 2, 3]
    assert chosen(layers=["q_proj"]) == [0, 2]
    assert chosen(layers=["layers.1.*"]) == [2, 3]
    assert chosen(min_layer_params=64 * 96) == [1, 3]
    assert chosen(max_layer_params=64 * 64) == [0, 2]
    with pytest.raises(ModelError, match="the model has \\['down_proj', 'q_proj'\\]"):
        chosen(layers=["proj"])


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"init_lora_weights": "pissa"}])
def test_a_model_answers_the_same_whatever_its_scaling_and_keeps_learning(settings):
    model = peft_llama(**settings)
    tokens = torch.arange(24).view(2, 12)
    optimizer = torch.optim.AdamW(trainable_tensors(model).values(), lr=0.01, fused=True)
    spectral = SpectralRefactorer(
        TrainerConfig(refactor_every=2, warmup_steps=0, cooldown_steps=0), trainable_tensors(model), optimizer
    )
    losses, reports = [], []
    for step in range(1, 9):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        before = model(tokens, labels=tokens)
        report = spectral.after_step(step, 8)
        after = model(tokens, labels=tokens)
        if report is not None:
            reports.append((step, report))
        assert relative_error(after.logits, before.logits) < 1e-5
        losses.append(after.loss.item())
    assert losses == sorted(losses, reverse=True)
    assert [step for step, _ in reports] == [2, 4, 6, 8]
    row = reports[-1][1].metrics()
    json.dumps([row, asdict(reports[-1][1])])  # plain numbers
    assert row["spectral_num_pairs"] == 4
    assert row["spectral_max_after"] == pytest.approx(row["spectral_max_before"])


def test_after_refactoring_a_zero_b_the_next_gradient_step_moves_it():
    model = peft_llama()  # peft starts B at 0
    pairs = find_pairs(trainable_tensors(model))
    optimizer = torch.optim.AdamW(trainable_tensors(model).values(), lr=0.01)
    refactor_adapters(pairs, optimizer, TrainerConfig())
    assert not any(pair.b.any() for pair in pairs)
    tokens = torch.arange(12)[None]
    for _ in range(2):  # the first moves B, and so lets a gradient reach A
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
    for pair in pairs:
        for parameter in (pair.b, pair.a):
            assert parameter.grad is not None and parameter.grad.any()
        assert product(pair).norm() > 1e-3
