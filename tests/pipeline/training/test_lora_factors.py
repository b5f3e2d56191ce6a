import math

import pytest
import torch

from pipeline.training.lora_factors import balanced_spectrum, effective_rank, refactor_pair, shared_second_moments


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


B, A = random(24, 6, seed=1), random(6, 16, seed=2)


def refactored(b, a, **settings):
    new = refactor_pair(b, a, **settings)
    assert new is not None
    return new


def test_hand_worked_factors():
    # B A = diag(6, 1, 0): singular values 6, 1 and, with a floor of 0.25, a row of length 0.5.
    b, a = torch.diag(torch.tensor([2.0, 1.0, 0.0])), torch.diag(torch.tensor([3.0, 1.0, 1.0]))
    new = refactored(b, a, floor=0.25)
    torch.testing.assert_close(new.b, torch.diag(torch.tensor([math.sqrt(6), 1, 0])).double())
    torch.testing.assert_close(new.a, torch.diag(torch.tensor([math.sqrt(6), 1, 0.5])).double())


@pytest.mark.parametrize(("balance", "expected"), [(0.0, [6, 1, 0]), (0.5, [4.75, 2.25, 0]), (1.0, [3.5, 3.5, 0])])
def test_balancing_moves_singular_values_to_the_mean_of_those_above_zero(balance, expected):
    spectrum = balanced_spectrum(torch.tensor([6.0, 1.0, 0.0]), balance)  # mean (6 + 1) / 2 = 3.5
    torch.testing.assert_close(spectrum, torch.tensor(expected, dtype=torch.float32))


def test_factors_share_the_singular_values_and_are_orthogonal():
    new = refactored(B, A)
    spectrum = torch.diag(torch.linalg.svdvals(B.double() @ A.double())[:6])
    torch.testing.assert_close(new.b.T @ new.b, spectrum, rtol=0, atol=1e-10)
    torch.testing.assert_close(new.a @ new.a.T, spectrum, rtol=0, atol=1e-10)


def test_null_directions_get_rows_of_length_root_floor_and_columns_of_zero():
    rank_3 = random(24, 3, seed=3) @ random(3, 6, seed=4)
    new = refactored(rank_3, A, floor=0.04)
    torch.testing.assert_close(new.a.norm(dim=1)[3:], torch.full((3,), 0.2, dtype=torch.float64))
    assert new.b[:, 3:].abs().max() < 1e-5 < new.b[:, :3].norm(dim=0).min()


def test_second_moments_are_shared_out_by_the_squared_norms_of_the_partner():
    v, old_b, new_b = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    # Sums over r: 6, 10. Shares: 1 / 4 and 9 / 4. The first entry may not be below (20 / 10)^2.
    first = torch.tensor([[-20.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[4.0, 2.5], [13.5, 22.5]])
    torch.testing.assert_close(shared_second_moments(v, old_b, new_b, first, dim=0), expected)
    torch.testing.assert_close(shared_second_moments(v.T, old_b.T, new_b.T, first.T, dim=1), expected.T)


def test_effective_rank_counts_equal_singular_values():
    assert effective_rank([2.0, 2.0, 0.0]) == pytest.approx(2)
    assert effective_rank([0.0]) == 0
