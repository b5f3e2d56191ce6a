"""Product keys: the best of N slots from 2 sqrt(N) comparisons.

A slot (i, j) has the key [rows_i, columns_j], so that its score is the sum of two. The best C slots lie among the best
C rows and the best C columns. arXiv:1907.05242.

Shapes: queries [..., K]; S rows and S columns of K/2 dimensions; slot i S + j.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProductKeys(nn.Module):
    """Two sets of keys. They are computed from the bank, and frozen unless they are chosen to train."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(side, dim // 2), requires_grad=False)
        self.columns = nn.Parameter(torch.zeros(side, dim // 2), requires_grad=False)

    def forward(self, query: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [..., S] of all rows and of all columns: cosines times the temperature, in float32."""
        halves = query.float().unflatten(-1, (2, -1)).unbind(-2)
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 would find other candidates
            row_scores, column_scores = (
                temperature * F.normalize(half, dim=-1) @ F.normalize(keys.float(), dim=-1).T
                for half, keys in zip(halves, (self.rows, self.columns), strict=True)
            )
        return row_scores, column_scores


def top_slots(row_scores: Tensor, column_scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` slots with the highest sums of two scores, best first: [..., count] slots and their scores.

    Args:
        row_scores, column_scores: [..., S].
        count: at most S^2.
    """
    side = row_scores.shape[-1]
    per_half = min(count, side)
    best_rows, rows = row_scores.topk(per_half, dim=-1)
    best_columns, columns = column_scores.topk(per_half, dim=-1)
    sums = (best_rows[..., :, None] + best_columns[..., None, :]).flatten(-2)
    slots = (rows[..., :, None] * side + columns[..., None, :]).flatten(-2)
    scores, places = sums.topk(count, dim=-1)
    return slots.gather(-1, places), scores


def slot_log_probs(row_scores: Tensor, column_scores: Tensor, slots: Tensor) -> Tensor:
    """Log-probabilities of slots under the softmax over all S^2: it factorizes into one over rows and one over columns.

    Args:
        row_scores, column_scores: [..., S].
        slots: [..., M].

    Returns:
        [..., M].
    """
    side = row_scores.shape[-1]
    of_rows = row_scores.log_softmax(dim=-1).gather(-1, slots // side)
    return of_rows + column_scores.log_softmax(dim=-1).gather(-1, slots % side)


def soft_label_loss(log_probs: Tensor, scores: Tensor) -> Tensor:
    """Cross-entropy against target slots whose scores, normalized, are the target distribution.

    Args:
        log_probs: [B, M] of the target slots.
        scores: [B, M], not negative; 0 for padding. A row has one positive score at least.

    Returns:
        the mean over rows, a scalar.
    """
    targets = scores / scores.sum(dim=-1, keepdim=True)
    return -(targets * log_probs).sum(dim=-1).mean()
