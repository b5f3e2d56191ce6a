"""``evaluation.json``: which models were asked which problems, and how. A resumed evaluation must match it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError
from pipeline.files import write_json
from pipeline.templates import TEMPLATES

if TYPE_CHECKING:  # reports read records, and need neither torch nor data sets
    from pipeline.config.evaluation import EvaluationConfig
    from pipeline.evaluation.datasets import Loaded
    from pipeline.evaluation.models import EvalModel
    from pipeline.evaluation.prompts import Prompter

RECORD_FILE = "evaluation.json"


@dataclass(frozen=True)
class EvaluationRecord:
    """Everything that the results depend on, as plain JSON values."""

    models: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    """One for each model and data set."""
    settings: dict[str, Any]

    @classmethod
    def of(
        cls,
        config: "EvaluationConfig",
        models: "Sequence[EvalModel]",
        loaded: "Sequence[Loaded]",
        prompters: "Mapping[tuple[str, str], Prompter]",
        notes: Mapping[str, str],
    ) -> "EvaluationRecord":
        """
        Args:
            notes: by model, which training data was searched for the problems.
        """
        return cls(
            [model_record(model) | {"training_data": notes[model.label]} for model in models],
            [_data_set(data) for data in loaded],
            [{"model": model, "dataset": name, **_prompt(p)} for (model, name), p in prompters.items()],
            config.results_key(),
        )

    def write(self, directory: Path) -> None:
        write_json(directory / RECORD_FILE, asdict(self))

    def check(self, directory: Path) -> None:
        """Raises CheckpointError if the evaluation in the directory has a different record."""
        now = json.loads(json.dumps(asdict(self)))
        refuse_changes("evaluation", directory, _comparable(read_record(directory)), _comparable(now))


def check_settings(directory: Path, config: "EvaluationConfig") -> None:
    """Raises CheckpointError if the evaluation in the directory was started with other settings."""
    before, now = read_record(directory)["settings"], json.loads(json.dumps(config.results_key()))
    before["loading"]["dtype"] = now["loading"]["dtype"]  # decided when it was started
    refuse_changes("evaluation", directory, {"settings": before}, {"settings": now})


def refuse_changes(job: str, directory: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises CheckpointError for the first part of a record that is not what it was."""
    for part, value in now.items():
        if before[part] != value:
            raise CheckpointError(
                f"{job} {directory} must be resumed as it was started, but its {part} differ: "
                f"{difference(before[part], value)}. Start a new {job}."
            )


def read_record(directory: Path) -> dict[str, Any]:
    """Raises CheckpointError if the directory has no record."""
    return record_of("evaluation", directory / RECORD_FILE, asdict(EvaluationRecord([], [], [], {})))


def record_of(job: str, path: Path, parts: Iterable[str]) -> dict[str, Any]:
    """The record in a file. Raises CheckpointError if there is none with these parts."""
    article = "an" if job[0] in "aeiou" else "a"
    try:
        record = json.loads(path.read_text())
        if isinstance(record, dict) and set(parts) <= record.keys():
            return record
        raise ValueError("it holds something else")
    except OSError as error:
        raise CheckpointError(
            f"{path.parent} must be {article} {job}'s directory, but has no {path.name}: {error.strerror or error}."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} must be the record of {article} {job}: {error}.") from None


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """The record with only the first word of each note, the number of questions: the rest may be worded differently by
    another version."""
    models = [model | {"training_data": model.get("training_data", "").split(" ")[0]} for model in record["models"]]
    return record | {"models": models}


def model_record(model: "EvalModel") -> dict[str, Any]:
    return {
        "label": model.label,
        "name": model.name,
        "kind": model.kind,
        "path": str(model.path),
        "base": str(model.base) if model.base else None,
        "run": str(model.run.path) if model.run else None,
        "fingerprint": model.fingerprint,
    }


def _data_set(data: "Loaded") -> dict[str, Any]:
    return {
        "name": data.name,
        "licence": data.licence,
        "num_problems": len(data.problems),
        "num_rows": data.num_rows,
        "num_without_answer": data.num_without_answer,
        "num_unscorable": len(data.unscorable),
        "unscorable": data.unscorable,
        "num_filtered": data.num_filtered,
        "num_seen_left_out": data.num_seen_left_out,
        "num_shots": len(data.shots),
        "digest": texts_digest(f"{p.id} {p.question} {p.gold}" for p in data.problems),
    }


def _prompt(prompter: "Prompter") -> dict[str, Any]:
    data = prompter.data
    return {
        "style": prompter.style,
        "template": TEMPLATES.get(data.prompt_template or "", data.prompt_template),
        "system_prompt": data.system_prompt if prompter.style == "chat" else None,
        "stop": list(prompter.stop),
        "num_shots": len(prompter.shots),
        "shots_digest": texts_digest(f"{shot.question} {shot.solution}" for shot in prompter.shots),
    }


def texts_digest(texts: Iterable[str]) -> str:
    """16 hex digits that change with the texts and their order."""
    return hashlib.sha256("\n".join(texts).encode(errors="replace")).hexdigest()[:16]


def difference(before: Any, now: Any) -> str:
    """The first value that differs, and where it is: ``temperature: was 0.0, is 1.0``."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return f"{key}: {difference(before.get(key), now.get(key))}"
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return next(difference(a, b) for a, b in zip(before, now, strict=True) if a != b)
    return f"was {before!r:.80}, is {now!r:.80}"
