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
            [_model(model) | {"training_data": notes[model.label]} for model in models],
            [_data_set(data) for data in loaded],
            [{"model": model, "dataset": name, **_prompt(p)} for (model, name), p in prompters.items()],
            config.results_key(),
        )

    def write(self, directory: Path) -> None:
        write_json(directory / RECORD_FILE, asdict(self))

    def check(self, directory: Path) -> None:
        """Raises CheckpointError if the evaluation in the directory has a different record."""
        before = _comparable(read_record(directory))
        now = _comparable(json.loads(json.dumps(asdict(self))))
        for part, value in now.items():
            if before[part] != value:
                raise _changed(directory, part, before[part], value)


def check_settings(directory: Path, config: "EvaluationConfig") -> None:
    """Raises CheckpointError if the evaluation in the directory was started with other settings."""
    before, now = read_record(directory)["settings"], json.loads(json.dumps(config.results_key()))
    before["loading"]["dtype"] = now["loading"]["dtype"]  # decided when it was started
    if before != now:
        raise _changed(directory, "settings", before, now)


def _changed(directory: Path, part: str, before: Any, now: Any) -> CheckpointError:
    return CheckpointError(
        f"evaluation {directory} must be resumed as it was started, but its {part} differ: {difference(before, now)}. "
        "Start a new evaluation."
    )


def read_record(directory: Path) -> dict[str, Any]:
    """Raises CheckpointError if the directory has no record."""
    try:
        record = json.loads((directory / RECORD_FILE).read_text())
        if isinstance(record, dict) and asdict(EvaluationRecord([], [], [], {})).keys() <= record.keys():
            return record
        raise ValueError("it holds something else")
    except OSError as error:
        raise CheckpointError(
            f"{directory} must be an evaluation's directory, but has no {RECORD_FILE}: {error.strerror or error}."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{directory}/{RECORD_FILE} must be the record of an evaluation: {error}.") from None


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """The record with only the first word of each note, the number of questions: the rest may be worded differently by
    another version."""
    models = [model | {"training_data": model.get("training_data", "").split(" ")[0]} for model in record["models"]]
    return record | {"models": models}


def _model(model: "EvalModel") -> dict[str, Any]:
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
        "digest": _digest(f"{p.id} {p.question} {p.gold}" for p in data.problems),
    }


def _prompt(prompter: "Prompter") -> dict[str, Any]:
    data = prompter.data
    return {
        "style": prompter.style,
        "template": TEMPLATES.get(data.prompt_template or "", data.prompt_template),
        "system_prompt": data.system_prompt if prompter.style == "chat" else None,
        "stop": list(prompter.stop),
        "num_shots": len(prompter.shots),
        "shots_digest": _digest(f"{shot.question} {shot.solution}" for shot in prompter.shots),
    }


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="replace")).hexdigest()[:16]


def difference(before: Any, now: Any) -> str:
    """The first value that differs, and where it is: ``temperature: was 0.0, is 1.0``."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return f"{key}: {difference(before.get(key), now.get(key))}"
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return next(difference(a, b) for a, b in zip(before, now, strict=True) if a != b)
    return f"was {before!r:.80}, is {now!r:.80}"
