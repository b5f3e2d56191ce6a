"""The rewards of written problems. Each is in [0, 1]; a malformed text gets 0. docs/questions.md has a table."""

from collections import deque
from collections.abc import Sequence
from statistics import fmean

from pipeline.config.questions import NoveltyConfig
from pipeline.data.stories import read_story
from pipeline.errors import RewardError
from pipeline.questions.judge import difficulty_value, key_holds
from pipeline.questions.similarity import KnownTexts, Reading, anonymous, cosine, phrases, plain, skeleton, with_numbers
from pipeline.questions.stated import same_answer
from pipeline.questions.variation import variation_value
from pipeline.questions.written import WrittenProblem, read_written
from pipeline.rewards.registry import RewardContext, StatefulReward, register
from pipeline.types import Problem, RolloutGroup, WritingKind
from pipeline.verifier import Verdict, grade_batch


@register("well_formed")
def well_formed(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """1 for a completion with a statement, a worked solution and an answer in their tags."""
    return [float(written is not None) for written in _written(group)]


@register("checked")
class Checked:
    """1 if the stated answer and the solution's lines match what is computed from the statement.

    Also 1 if nothing can be computed, unless ``must_compute``.
    """

    def __init__(self, context: RewardContext) -> None:
        self._config = context.config.questions

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [float(written is not None and key_holds(written, self._config)) for written in _written(group)]


@register("difficulty")
class Difficulty:
    """0 for another difficulty than the one asked for; otherwise it grows with the numbers."""

    def __init__(self, context: RewardContext) -> None:
        self._config = context.config.questions

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [
            difficulty_value(group.problem, written, self._config) if written else 0.0 for written in _written(group)
        ]


@register("diverse")
def diverse(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """1 - mean similarity to the other problems of the group; 1 if there are no others.

    Skeletons are compared, so one problem retold about other people and things is still one problem. Variations of one
    problem all share its skeleton, so their plain words are compared.
    """
    reading = skeleton if _kind(group.problem) == "new" else plain
    found = [phrases(reading(written.statement)) if written else None for written in _written(group)]
    values = []
    for index, own in enumerate(found):
        others = [other for place, other in enumerate(found) if other is not None and place != index]
        alike = [cosine(own, other) for other in others] if own is not None else [1.0]
        values.append(1 - fmean(alike or [0.0]))
    return values


@register("variation")
class Variation:
    """1 for the kind of variation that was asked for. A new problem has no original and also gets 1."""

    def __init__(self, context: RewardContext) -> None:
        self._config = context.config.questions.variation

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        task = group.problem.writing
        return [
            (variation_value(task, written, self._config) if task else 1.0) if written else 0.0
            for written in _written(group)
        ]


@register("novel")
class Novel(StatefulReward):
    """Falls from 1 to 0 as the similarity to the training data and to the latest written problems rises.

    Numbers and names are masked. Things are kept, because with things masked too, most honest stories of one operation
    would count as copies. Retold training problems are therefore found separately: a new problem is a copy if it
    differs from one only in names, things and, for a story, wording.

    The state is the list of the latest written statements, oldest first. Only well-formed problems with a right key
    enter it.
    """

    state: list[str]

    def __init__(self, context: RewardContext) -> None:
        self.state = []
        self._context = context
        self._config = context.config.questions.novelty
        self._known: dict[Reading, KnownTexts] = {}
        self._originals: set[tuple[object, ...]] | None = None

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        # A variation with other parameters keeps all other words: with numbers and names masked it would be a copy.
        known = self._known_texts(plain if _kind(group.problem) == "parameters" else anonymous)
        known.set_history(self.state)
        found = _written(group)
        alike = iter(known.similarities([written.statement for written in found if written]))
        is_new = _kind(group.problem) == "new"
        return [
            0.0
            if written is None or (is_new and self._is_copy(written.statement))
            else novelty_value(near, self._config)
            for written, near in ((written, next(alike) if written else 1.0) for written in found)
        ]

    def _is_copy(self, statement: str) -> bool:
        """True if some training problem differs only in names, things and, for a story, wording."""
        if self._originals is None:
            self._originals = set(map(_told, training_statements(self._context.training_problems())))
        return _told(statement) in self._originals

    def _known_texts(self, reading: Reading) -> KnownTexts:
        """The training data in a reading. Made on first use: a learner only advances the state and needs none."""
        if reading not in self._known:
            self._known[reading] = KnownTexts(training_statements(self._context.training_problems()), reading)
        return self._known[reading]

    def next_state(self, groups: Sequence[RolloutGroup]) -> list[str]:
        config = self._context.config.questions
        new = [
            written.statement
            for group in groups
            for written in _written(group)
            if written and key_holds(written, config)
        ]
        return list(deque([*self.state, *new], maxlen=self._config.history))


@register("solvable")
class Solvable:
    """Highest if the target share of the solver's answers agrees with the stated one.

    0 if all or none agree, or if more agree on some other answer: then the stated one is probably wrong.
    """

    def __init__(self, context: RewardContext) -> None:
        if context.solve is None or context.config.questions.solver is None:
            raise RewardError(
                "questions.solver must be set for the reward solvable, got none: someone has to try the written "
                "problems. Set questions.solver, or leave solvable out of reward.functions."
            )
        self._solve = context.solve
        self._config = context.config.questions.solver

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        found = _written(group)
        written = [each for each in found if each]
        samples = self._solve(group, [each.statement for each in written]) if written else []
        pairs = [
            (sample.text, each.answer) for each, solutions in zip(written, samples, strict=True) for sample in solutions
        ]
        graded = iter(grade_batch(pairs))
        rates = iter([consistent_rate([next(graded) for _ in solutions]) for solutions in samples])
        target = self._config.target_rates.get(group.problem.level or "", self._config.target_rate)
        return [solve_rate_value(next(rates), target) if each else 0.0 for each in found]


def _told(statement: str) -> tuple[object, ...]:
    """A key that is equal for problems that differ only in names, things and, for stories, wording."""
    story = read_story(statement)
    return story.key if story else tuple(with_numbers(statement))


def novelty_value(similarity: float, config: NoveltyConfig) -> float:
    """1 up to ``free_similarity``, 0 from ``copy_similarity``, linear in between."""
    if similarity >= config.copy_similarity:
        return 0.0
    if similarity <= config.free_similarity:
        return 1.0
    return (config.copy_similarity - similarity) / (config.copy_similarity - config.free_similarity)


def consistent_rate(verdicts: Sequence[Verdict]) -> float:
    """Share of a problem's solutions that agree with the stated answer; 0 if more agree on some other answer."""
    num_right = sum(verdict.outcome == "correct" for verdict in verdicts)
    others = [verdict.answer for verdict in verdicts if verdict.outcome == "incorrect" and verdict.answer]
    most = max((sum(same_answer(one, other) for other in others) for one in others), default=0)
    return 0.0 if num_right < most else num_right / max(len(verdicts), 1)


def solve_rate_value(rate: float, target: float) -> float:
    """1 at the target, falling linearly to 0 at the rates 0 and 1."""
    return rate / target if rate <= target else (1 - rate) / (1 - target)


def training_statements(problems: Sequence[Problem]) -> list[str]:
    """The distinct statements of the training data: ordinary problems, and the examples and originals of tasks."""
    found: dict[str, None] = {}
    for problem in problems:
        if problem.writing is None:
            found[problem.question] = None
            continue
        example = read_written(problem.solution) if problem.solution else None
        if isinstance(example, WrittenProblem):
            found[example.statement] = None
        if problem.writing.original is not None:
            found[problem.writing.original] = None
    return list(found)


def _kind(problem: Problem) -> WritingKind:
    return problem.writing.kind if problem.writing else "new"


def _written(group: RolloutGroup) -> list[WrittenProblem | None]:
    """The problem in each completion; None if it is malformed."""
    read = [read_written(completion.text) for completion in group.completions]
    return [each if isinstance(each, WrittenProblem) else None for each in read]
