"""Small files of facts."""

from pathlib import Path

from tests.support.data import write_jsonl

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Cuba": "Havana", "Egypt": "Cairo", "Ghana": "Accra", "Nepal": "Kathmandu", "Chile": "Santiago", "Iraq": "Baghdad",
}  # fmt: skip
CAPITAL = {"relation_id": "P36", "relation_label": "capital", "template": "The capital of [X] is [Y] ."}
LANGUAGE = {"relation_id": "P37", "relation_label": "official language", "template": "[X] speaks [Y] ."}


def write_facts(path: Path, *more: dict[str, str]) -> Path:
    """Twelve capitals, two official languages of Kenya, three of others, and more rows."""
    capitals = [{"subject": subject, "object": object, **CAPITAL} for subject, object in CAPITALS.items()]
    spoken = (
        ("Kenya", "English"),
        ("Kenya", "Swahili"),
        ("Ghana", "English"),
        ("Cuba", "Spanish"),
        ("Nepal", "Nepali"),
    )
    languages = [{"subject": subject, "object": object, **LANGUAGE} for subject, object in spoken]
    write_jsonl(path, *capitals, *languages, *more)
    return path
