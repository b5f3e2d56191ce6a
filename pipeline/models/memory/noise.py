"""Gumbel noise that depends on the example, the layer and the position alone, not on the batch.

A run with two workers, or a resumed one, then draws the same as one worker from start to end.
"""

import math

import torch
from torch import Tensor

_GOLDEN, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""Constants of splitmix64, as signed 64-bit integers. Steele, Lea and Flood 2014."""
_NUM_BITS = 23
"""Of a uniform number, which lies in the middle between two multiples of 2^-23: float32 rounds none to 0 or 1."""


def gumbel_noise(seeds: Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """Standard Gumbel noise [B, T, C], float32.

    Args:
        seeds: [B] int64, of the examples.
        shape: T positions and C candidates.
    """
    return -torch.log(-torch.log(uniform_noise(seeds, layer, shape)))


def uniform_noise(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Noise in (0, 1), [B, *shape] float32. A longer first dimension of ``shape`` changes none of what was there."""
    counters = torch.arange(math.prod(shape), device=seeds.device).view(shape)
    keys = _splitmix(_splitmix(seeds) + stream).view(-1, *(1 for _ in shape))
    bits = _splitmix(keys + counters) & (2**_NUM_BITS - 1)
    uniform: Tensor = (bits.float() + 0.5) * 2.0**-_NUM_BITS
    return uniform


def _splitmix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits of unsigned integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
