"""Divides records into two sides, stratified and seeded, with the same problem never on both.

Two problems are the same if they differ only in case, white space, punctuation and signs; they go to one side
together. All randomness is the order of SHA-256 digests of the seed and a text. So a split does not depend on the
machine, a library's generator, or the order of rows in the source (except that the first of repeated rows is kept).
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from pipeline.data.splits.records import Record

Stratum = tuple[str, str]
"""Level and type; the type is empty unless the split is stratified by type."""
Key = TypeVar("Key", str, Stratum)


def split_records(
    records: Sequence[Record], test_fraction: float, *, by_type: bool = False, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, each in a seeded order.

    Records of the same problem form a group. In a seeded order, a group is held out if it fits into the places that
    ``held_out_quotas`` still leaves open. If quotas are then still short, groups that overshoot by less than what is
    missing are held out as well.
    """
    groups = defaultdict(list)
    for record in records:
        groups[normalized(record.problem)].append(record)
    open_places = held_out_quotas(records, test_fraction, by_type=by_type)
    order = sorted(groups, key=lambda key: seeded_rank(seed, "split", key))
    held_out: set[str] = set()
    for suits in (_fits, _reduces_gap):
        for key in order:
            sizes = Counter(_stratum(record, by_type) for record in groups[key])
            if key not in held_out and suits(sizes, open_places):
                open_places.subtract(sizes)
                held_out.add(key)
    in_order = sorted(records, key=lambda record: seeded_rank(seed, "order", record.id))
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in in_order:
        sides[normalized(record.problem) in held_out].append(record)
    return sides


def held_out_quotas(records: Sequence[Record], test_fraction: float, *, by_type: bool = False) -> Counter[Stratum]:
    """Number of rows to hold out of each stratum.

    Rounded by largest remainders, first over levels, then over the types of each level, so that a level's quota does
    not depend on its types. A level with two or more rows has at least one on each side; a single row is for training.
    """
    levels = Counter(record.level for record in records)
    quotas: Counter[Stratum] = Counter()
    for level, quota in apportion(levels, Fraction(str(test_fraction))).items():
        quota = min(max(quota, 1), levels[level] - 1)
        strata = Counter(_stratum(record, by_type) for record in records if record.level == level)
        quotas.update(apportion(strata, Fraction(quota, levels[level])))
    return quotas


def apportion(sizes: Mapping[Key, int], share: Fraction) -> dict[Key, int]:
    """A share of every size as whole numbers, which add up to the rounded share of the total.

    The largest remainders are rounded up; the first names win a tie.
    """
    exact = {key: sizes[key] * share for key in sorted(sizes)}
    parts = {key: int(value) for key, value in exact.items()}
    num_up = round(sum(exact.values())) - sum(parts.values())
    for key in sorted(exact, key=lambda key: parts[key] - exact[key])[:num_up]:
        parts[key] += 1
    return parts


def normalized(problem: str) -> str:
    """Letters and digits only, case folded. A text without any stays as it is."""
    folded = unicodedata.normalize("NFKC", problem).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or problem.strip()


def seeded_rank(seed: int, purpose: str, text: str) -> bytes:
    """A sort key for a random order that depends on nothing but its arguments."""
    return hashlib.sha256(f"{seed} {purpose} {text}".encode()).digest()


def _stratum(record: Record, by_type: bool) -> Stratum:
    return record.level, (record.type or "") if by_type else ""


def _fits(sizes: Counter[Stratum], open_places: Counter[Stratum]) -> bool:
    return all(open_places[stratum] >= size for stratum, size in sizes.items())


def _reduces_gap(sizes: Counter[Stratum], open_places: Counter[Stratum]) -> bool:
    change = [abs(open_places[stratum] - size) - abs(open_places[stratum]) for stratum, size in sizes.items()]
    return sum(change) < 0
