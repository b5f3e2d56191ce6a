"""Training and held-out problems from any data set: stratified, seeded, and never the same problem in both."""

from collections import Counter

from pipeline.data.selection import natural_order
from pipeline.data.splits.files import write_split
from pipeline.data.splits.records import LeftOut, Record, SplitResult, read_records
from pipeline.data.splits.settings import SplitSettings
from pipeline.data.splits.stratify import seeded_rank, split_records
from pipeline.errors import DataError

__all__ = ["SplitResult", "SplitSettings", "prepare_split"]


def prepare_split(settings: SplitSettings) -> SplitResult:
    """Read, split, and write ``train.parquet``, ``test.parquet`` and ``split.json``, all or nothing.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the data cannot be read or used, or the output cannot be written.
    """
    settings.check()
    records, left_out = read_records(settings)
    if settings.max_per_level is not None:
        records = _capped(records, settings.max_per_level, settings.seed, left_out)
    if not records:
        reasons = "; ".join(left_out.lines()) or "it has no rows at all"
        raise DataError(f"data {settings.data} must have usable rows, and has none: {reasons}.")
    by_type = "type" in settings.stratify_by
    train, test = split_records(records, settings.test_fraction, by_type=by_type, seed=settings.seed)
    if not train or not test:
        raise DataError(
            f"data {settings.data} cannot be split: of {len(records)} usable rows none can be held out without "
            "emptying a level or putting the same problem on both sides. Give more rows."
        )
    result = SplitResult(train, test, left_out, [*_contradictions(records), *_one_sided(train, test)])
    write_split(settings, result)
    return result


def _capped(records: list[Record], max_per_level: int, seed: int, left_out: LeftOut) -> list[Record]:
    per_level: Counter[str] = Counter()
    kept = []
    for record in sorted(records, key=lambda record: seeded_rank(seed, "cap", record.id)):
        per_level[record.level] += 1
        if per_level[record.level] <= max_per_level:
            kept.append(record)
        else:
            left_out.add("beyond --max-per-level", f"id {record.id}")
    return kept


def _contradictions(records: list[Record]) -> list[str]:
    """A note on the problems that have several answers, if there are any."""
    counts = Counter(record.problem for record in records)  # of records with the same answer only one was kept
    repeated = {problem: count for problem, count in counts.items() if count > 1}
    if not repeated:
        return []
    first = next(record for record in records if record.problem in repeated)
    noun, verb = ("problem", "has") if len(repeated) == 1 else ("problems", "have")
    return [
        f"{len(repeated):,} {noun} {verb} different answers, in {sum(repeated.values()):,} rows that are all kept "
        f"(the first: id {first.id})"
    ]


def _one_sided(train: list[Record], test: list[Record]) -> list[str]:
    """A note on every level that is on one side only."""
    in_train, in_test = (Counter(record.level for record in side) for side in (train, test))
    notes = []
    for level in sorted(in_train.keys() ^ in_test.keys(), key=natural_order):
        count, side = in_train[level] + in_test[level], "train" if in_train[level] else "test"
        rows = "its 1 row is" if count == 1 else f"its {count} rows are one problem, or too few, and are"
        notes.append(f"level {level} cannot be split: {rows} in {side}")
    return notes
