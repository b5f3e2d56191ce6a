"""The trained modules: normalization, gate and fusion.

Shapes: hidden states [..., d] of the backbone; queries [..., K].
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEMPERATURES = (1.0, 100.0)
"""Limits of the learned temperatures that multiply cosines."""


class LowRankLinear(nn.Module):
    """A linear map as two matrices through ``rank`` dimensions. The bias belongs to the second."""

    def __init__(self, d_in: int, d_out: int, rank: int, *, bias: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(d_in, rank, bias=False)
        self.up = nn.Linear(rank, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.up(self.down(x)))


def linear(d_in: int, d_out: int, rank: int | None, *, bias: bool = False) -> nn.Module:
    """A full matrix, or two of low rank."""
    return nn.Linear(d_in, d_out, bias=bias) if rank is None else LowRankLinear(d_in, d_out, rank, bias=bias)


class MemoryNorm(nn.RMSNorm):
    """RMSNorm of a layer's hidden states, before the gate and the fusion."""


class ResidualBlock(nn.Module):
    """x + down(GELU(up(LayerNorm(x)))), twice as wide inside."""

    def __init__(self, d: int, rank: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up = linear(d, 2 * d, rank, bias=True)
        self.down = linear(2 * d, d, rank, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.down(F.gelu(self.up(self.norm(x)))))


class MemoryGate(nn.Module):
    """Queries of the product keys, and the temperature of their scores.

    Args:
        rank: of the projections. None: full matrices.
    """

    def __init__(self, d: int, knowledge_dim: int, rank: int | None) -> None:
        super().__init__()
        self.query = nn.Sequential(
            linear(d, d, rank), ResidualBlock(d, rank), nn.LayerNorm(d), linear(d, knowledge_dim, rank)
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.query(hidden))

    @property
    def temperature(self) -> Tensor:
        """Multiplies the cosines of the product keys, within limits."""
        return clamped_temperature(self.log_temperature)


class EntryAttention(nn.Module):
    """Attention of hidden states over the token embeddings of entries, which are its values as they are.

    Args:
        dim: of queries and keys.
        length: tokens of an entry.
    """

    def __init__(self, d: int, dim: int, length: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(d, dim, bias=False), nn.Linear(d, dim, bias=False)
        self.position = nn.Parameter(torch.zeros(length, dim))

    def forward(self, hidden: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
        """Hidden states [B, T, d] and the embeddings [B, M L, d] of M entries, with their mask [B, M L], to
        [B, T, d]."""
        keys = self.key(vectors)
        keys = keys + self.position.to(keys.dtype).repeat(keys.shape[1] // len(self.position), 1)
        scores = self.query(hidden) @ keys.transpose(1, 2) * self.position.shape[1] ** -0.5
        weights = scores.float().masked_fill(~mask[:, None, :], -1e9).softmax(dim=-1)
        return cast(Tensor, weights @ vectors.float())


def clamped_temperature(logarithm: Tensor) -> Tensor:
    return logarithm.exp().clamp(*TEMPERATURES)


class GatedMemoryFusion(nn.Module):
    """SwiGLU of [hidden, memory]: what is added to the hidden states. Zero before training."""

    def __init__(self, d: int, rank: int | None) -> None:
        super().__init__()
        self.gate, self.up = linear(2 * d, d, rank), linear(2 * d, d, rank)
        self.down = linear(d, d, rank)

    def forward(self, hidden: Tensor, memory: Tensor) -> Tensor:
        both = torch.cat([hidden, memory], dim=-1)
        return cast(Tensor, self.down(F.silu(self.gate(both)) * self.up(both)))


def initialize(module: nn.Module) -> None:
    """Weights of matrices normal with standard deviation fan_in^-0.5; the fusion's last matrix, and biases, zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, GatedMemoryFusion):
            last = part.down.up if isinstance(part.down, LowRankLinear) else part.down
            nn.init.zeros_(cast(nn.Linear, last).weight)
