"""Writes rated problems with their data card: ``train.parquet``, ``card.json`` and ``card.md``."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.files import sha256, whole_directory, write_json, write_parquet
from pipeline.questions.ratings.difficulty import LEVELS
from pipeline.questions.ratings.rate import RatedProblem, Ratings
from pipeline.questions.ratings.settings import RateSettings
from pipeline.questions.ratings.topics import TOPICS

HIGH_QUALITY = 0.8
_NOT_GIVEN = "not given"


def write_ratings(settings: RateSettings, ratings: Ratings) -> None:
    """Write all files or none: the directory appears complete.

    Raises:
        DataError: the output cannot be written.
    """
    try:
        with whole_directory(settings.output.expanduser().resolve()) as folder:
            _write_files(folder, settings, ratings)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"output {settings.output} cannot be written: {reason}. Choose another --output.") from None


def _write_files(folder: Path, settings: RateSettings, ratings: Ratings) -> None:
    import pyarrow as pa

    numbers = {"difficulty", "quality"}
    names = RatedProblem.__dataclass_fields__
    columns = {name: pa.float64() if name in numbers else pa.string() for name in names}
    write_parquet(folder / "train.parquet", [asdict(problem) for problem in ratings.kept], columns)
    card = data_card(settings, ratings) | {"sha256": {"train.parquet": sha256(folder / "train.parquet")}}
    write_json(folder / "card.json", card)
    (folder / "card.md").write_text(card_text(card), encoding="utf-8")


def data_card(settings: RateSettings, ratings: Ratings) -> dict[str, Any]:
    """Counts of kept and left-out problems, and their sources."""
    licences = settings.licence or [_NOT_GIVEN] * len(settings.data)
    counts = Counter((problem.level, problem.topic) for problem in ratings.kept)
    num_high = sum(quality > HIGH_QUALITY for quality in ratings.qualities)
    return {
        "num_problems": len(ratings.kept),
        "sources": {
            name: {"num_rated": ratings.sources[name], "licence": licence}
            for name, licence in zip(settings.data, licences, strict=True)
        },
        "parts": dict(sorted(Counter(problem.source for problem in ratings.kept).items())),
        "levels": {level: {topic: counts[level, topic] for topic in TOPICS} for level in LEVELS},
        "quality": {
            "num_rated": len(ratings.qualities),
            "mean": round(sum(ratings.qualities) / len(ratings.qualities), 4),
            "high_frac": round(num_high / len(ratings.qualities), 4),
            "tenths": [sum(min(int(quality * 10), 9) == tenth for quality in ratings.qualities) for tenth in range(10)],
            "lowered_by": dict(ratings.checks.most_common()),
        },
        "left_out": {
            reason: {"count": count, "examples": ratings.left_out.examples[reason]}
            for reason, count in sorted(ratings.left_out.counts.items())
        },
        "filters": {
            "min_quality": settings.min_quality,
            "levels": list(settings.levels),
            "topics": list(settings.topics),
        },
    }


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    levels, quality = card["levels"], card["quality"]
    topics = [topic for topic in TOPICS if any(counts[topic] for counts in levels.values())]
    by_level = [(level, *(counts[topic] for topic in topics), sum(counts.values())) for level, counts in levels.items()]
    tenths = [(f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", count) for tenth, count in enumerate(quality["tenths"])]
    parts = [
        "# Data card",
        f"{card['num_problems']:,} problems of {quality['num_rated']:,} that were rated. "
        f"Mean quality {quality['mean']:.2f}, {quality['high_frac']:.1%} above {HIGH_QUALITY}.",
        "## Sources",
        _table(("data", "rated", "licence"), [(n, s["num_rated"], s["licence"]) for n, s in card["sources"].items()]),
        "## Difficulty and topic",
        _table(("level", *topics, "all"), by_level),
        "## Quality",
        _table(("quality", "rated"), tenths),
        _table(("lowered by", "problems"), quality["lowered_by"].items()),
        "## Left out",
        _table(("reason", "rows"), [(reason, each["count"]) for reason, each in card["left_out"].items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
