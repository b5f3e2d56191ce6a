"""How much of a bank is used: the number of times that each entry was chosen."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.memory.bank import KnowledgeBank


@dataclass(frozen=True)
class BankUse:
    """Choices by entry."""

    counts: Tensor
    """[E] int64"""

    def metrics(self) -> dict[str, float]:
        """For a row of metrics: the share of entries that were chosen at all, and the entropy of the choices in nats
        and as a share of the highest possible."""
        chosen = self.counts[self.counts > 0].double()
        share = chosen / chosen.sum()
        entropy = float(-(share * share.log()).sum()) if len(chosen) else 0.0
        highest = torch.tensor(float(len(self.counts))).log().item()
        return {
            "bank/coverage": len(chosen) / max(len(self.counts), 1),
            "bank/entropy": entropy,
            "bank/entropy_frac": entropy / highest if highest > 0 else 0.0,
            "bank/num_dead": float(len(self.counts) - len(chosen)),
            "bank/hottest_frac": float(share.max()) if len(chosen) else 0.0,
        }

    def hottest(self, count: int = 10) -> list[tuple[int, int]]:
        """The entries that were chosen most often, and how often."""
        order = self.counts.argsort(descending=True, stable=True)[:count].tolist()
        return [(entry, int(self.counts[entry])) for entry in order if self.counts[entry]]


def bank_use(slots: Iterable[Tensor], bank: KnowledgeBank) -> BankUse:
    """The use of a bank, given the slots that were chosen. Empty slots are no entries."""
    counts = torch.zeros(bank.num_entries, dtype=torch.long)
    for chosen in slots:
        entries = bank.entry_of_slot[chosen.flatten()].cpu()
        counts += entries[entries >= 0].bincount(minlength=bank.num_entries)
    return BankUse(counts)
