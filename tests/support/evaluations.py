"""Evaluations made up by hand."""

from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config.evaluation import EvaluationConfig, LoadingConfig
from pipeline.evaluation.problems import EvalProblem
from pipeline.evaluation.record import EvaluationRecord
from pipeline.evaluation.results import COLUMNS, ResultsFile

PROBLEMS = tuple(EvalProblem(f"p{n}", f"{n}?", str(n), level=str(n % 2)) for n in range(6))
"""Six problems of two levels. The gold answer of ``p3`` is 3."""


FLOAT = LoadingConfig(dtype="float32")


def run_config(base: Path, root: Path, lora: dict | None = None) -> Config:
    """A run that trains the base model on a CPU."""
    model = {"name": str(base), "dtype": "float32", "device": "cpu", "lora": lora}
    stages = [{"name": "sft", "kind": "sft"}]
    return Config.model_validate({"model": model, "stages": stages, "output": {"root": str(root)}})


def evaluation_config(dataset: Any = "gsm8k", **settings: Any) -> EvaluationConfig:
    return EvaluationConfig.model_validate({"model": "some/model", "dataset": dataset, **settings})


def result_row(model: str, problem: EvalProblem, answer: str, sample: int = 0, **values: Any) -> dict[str, Any]:
    """A row of eval_results.jsonl. The answer is correct if it is the gold text."""
    right = answer == problem.gold
    known = {
        **{"model": model, "dataset": "sums", "problem_id": problem.id, "sample": sample, "level": problem.level},
        **{"question": problem.question, "prompt": problem.question, "completion": answer, "answer": answer},
        **{"gold": problem.gold, "outcome": "correct" if right else "incorrect", "num_tokens": len(answer)},
        **{"num_prompt_tokens": 2, "seconds": 0.1, "strict": right, "symbolic": right, "numeric": right},
    }
    return dict.fromkeys(COLUMNS) | known | values


def write_evaluation(
    directory: Path, model: str, answers: list[str], template: str = "{question}", temperature: float = 0.0
) -> Path:
    """The directory of a finished evaluation of one model on PROBLEMS."""
    directory.mkdir(parents=True)
    data = {"name": "sums", "num_problems": 6, "num_rows": 6, "num_without_answer": 0, "num_unscorable": 0}
    data |= {"num_filtered": 0, "num_seen_left_out": 0, "num_shots": 0, "licence": None}
    prompt = {"model": model, "dataset": "sums", "style": "plain", "template": template}
    record = EvaluationRecord(
        [{"label": model, "training_data": "not known"}],
        [data],
        [prompt | {"system_prompt": None, "stop": []}],
        {"rollout": {"temperature": temperature}},
    )
    record.write(directory)
    ResultsFile(directory).append([result_row(model, p, a) for p, a in zip(PROBLEMS, answers, strict=True)])
    return directory
