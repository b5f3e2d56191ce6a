"""Asks a problem, as plain text or as a chat."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import Config, DataConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.data.answers import worked_solution
from pipeline.data.problems import question_alone
from pipeline.errors import ConfigError
from pipeline.evaluation.datasets import Loaded
from pipeline.evaluation.problems import EvalProblem
from pipeline.models.tokenizer import check_prompt, prompt_token_ids
from pipeline.templates import PromptTemplate
from pipeline.types import Message, Problem


@dataclass(frozen=True)
class Prompter:
    """Makes the prompts of one data set for one model."""

    style: Literal["plain", "chat"]
    data: DataConfig
    """Holds the template or the system prompt, and the field of the question."""
    shots: tuple[EvalProblem, ...]
    stop: tuple[str, ...]

    def token_ids(self, tokenizer: Any, problem: EvalProblem) -> tuple[int, ...]:
        return prompt_token_ids(tokenizer, self._prompted(problem))

    def check(self, tokenizer: Any, problem: EvalProblem, model: str) -> None:
        """Raises ModelError if the model's chat template refuses the problem."""
        check_prompt(tokenizer, self._prompted(problem), model)

    def text(self, tokenizer: Any, problem: EvalProblem) -> str:
        """The prompt as the model sees it."""
        prompted = self._prompted(problem)
        if prompted.prompt_text is not None:
            return prompted.prompt_text
        return str(tokenizer.apply_chat_template(list(prompted.prompt), add_generation_prompt=True, tokenize=False))

    def _prompted(self, problem: EvalProblem) -> Problem:
        alone = question_alone(problem.asked, self.data)
        if alone.prompt_text is not None:
            solved = [f"{question_alone(s.asked, self.data).prompt_text}{_shown(s)}\n\n" for s in self.shots]
            return Problem(alone.id, alone.prompt, problem.gold, prompt_text="".join(solved) + alone.prompt_text)
        system = alone.prompt[: alone.prompt[0]["role"] == "system"]
        turns: list[Message] = []
        for shot in self.shots:
            turns += (turn for turn in shot.messages if turn["role"] != "system")
            turns += () if shot.messages else ({"role": "user", "content": shot.question},)
            turns.append({"role": "assistant", "content": worked_solution(shot.reasoning, shot.gold)})
        return Problem(alone.id, (*system, *turns, *alone.prompt[len(system) :]), problem.gold)


def make_prompter(loaded: Loaded, config: EvaluationConfig, run: Config | None) -> Prompter:
    """The prompter of one data set for one model.

    Args:
        run: the configuration of the run that the model comes from, if any.

    Raises:
        ConfigError: the run's prompt uses columns other than the question, or a question does not fit into it.
    """
    settings = config.prompt
    if settings.style == "auto" and run and settings.template is None:
        data = _run_prompt(run.data)
    elif settings.style == "chat":
        data = DataConfig()
    else:
        data = DataConfig(prompt_template=loaded.template)
    if settings.system_prompt is not None:
        data = data.model_copy(update={"system_prompt": settings.system_prompt})
    for problem in (*loaded.problems, *loaded.shots):
        question_alone(problem.asked, data)
    style: Literal["plain", "chat"] = "chat" if data.uses_chat_template else "plain"
    stop = config.rollout.stop if config.rollout.stop is not None else _next_question(data)
    return Prompter(style, data, tuple(loaded.shots), tuple(stop))


def _shown(shot: EvalProblem) -> str:
    """The solution, or the answer in a box if the data has only that: models imitate what they are shown."""
    return f"\\boxed{{{shot.gold}}}" if shot.solution == shot.gold else shot.solution


def _next_question(data: DataConfig) -> list[str]:
    """The line before the question in a plain prompt: a model that does not stop by itself would write a new question
    there."""
    if data.prompt_template is None:
        return []
    parts = PromptTemplate.parse(data.prompt_template, data.fields.question).parts
    lines = next(text for text, field in parts if field is not None).rstrip().splitlines()
    return [f"\n{lines[-1]}"] if lines else []


def _run_prompt(data: DataConfig) -> DataConfig:
    """The part of the run's data settings that makes its prompts."""
    if data.prompt_template is not None:
        fields = PromptTemplate.parse(data.prompt_template, data.fields.question).fields
        if set(fields) != {data.fields.question}:
            raise ConfigError(
                f"prompt.style must be plain or chat for this run, whose prompt has fields {', '.join(fields)}: "
                "other data sets may lack them."
            )
    return DataConfig(
        name=data.name, prompt_template=data.prompt_template, system_prompt=data.system_prompt, fields=data.fields
    )
