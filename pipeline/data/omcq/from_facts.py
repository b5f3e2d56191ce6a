"""Makes multiple-choice questions from facts, split by fact, and the sentences that hold their answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from pipeline.data.omcq.facts import Distractors, Fact, gives_itself_away, normal, read_facts
from pipeline.data.omcq.records import ChoiceQuestion, KnowledgeEntry, fill
from pipeline.data.omcq.wordings import FRAMES, GAP, LAYOUTS, in_one_line, unseen_question
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256, whole_directory, write_json, write_jsonl
from pipeline.seeds import derive_seed
from pipeline.types import Message

REQUEST = "Answer with the text of the right option."


@dataclass(frozen=True)
class FactSettings:
    """Settings of ``jobs/prepare_data.py omcq-from-facts``."""

    facts: Path
    output: Path
    num_options: int = 3
    test_fraction: float = 0.2
    num_test: int | None = None
    """Test questions. None: ``test_fraction`` of all."""
    max_facts: int | None = None
    """Facts to ask about, training and test together, drawn at random. None: all."""
    relations: tuple[str, ...] = ()
    """Ids or labels. Empty: all."""
    bank_size: int | None = None
    """Entries of knowledge.jsonl: those of the questions, then further facts. None: those of the questions."""
    distractors: Literal["frequency", "uniform"] = "frequency"
    request: str = REQUEST
    answer_lead: str = " "
    """Put before the answer. After a space it has the tokens that it has in its sentence."""
    seed: int = 0
    force: bool = False

    def check(self) -> None:
        """Raises ConfigError or DataError."""
        for name, value, low in (
            ("num-options", self.num_options, 2),
            ("num-test", self.num_test, 1),
            ("max-facts", self.max_facts, 2),
            ("bank-size", self.bank_size, 1),
        ):
            if value is not None and value < low:
                raise ConfigError(f"--{name} must be at least {low}, got {value}.")
        if self.num_options > 26:
            raise ConfigError(f"--num-options must be at most 26, the letters there are, got {self.num_options}.")
        if not 0 < self.test_fraction < 1:
            raise ConfigError(f"--test-fraction must be above 0 and below 1, got {self.test_fraction:g}.")
        output = self.output.expanduser().resolve()
        if output.exists() and not output.is_dir():
            raise DataError(f"output {self.output} must be a directory, and is a file. Choose another --output.")
        if output.is_dir() and any(output.iterdir()) and not (self.force and (output / "facts.json").exists()):
            raise DataError(
                f"output {self.output} is not empty. Choose another --output. --force replaces a directory made by "
                "omcq-from-facts, with all that is in it."
            )


class FactQuestions(NamedTuple):
    """Questions of both sides, and the bank."""

    train: list[ChoiceQuestion]
    test: list[ChoiceQuestion]
    knowledge: list[KnowledgeEntry]
    left_out: Counter[str]
    """Reason -> facts."""

    def priors(self) -> dict[str, float]:
        """Accuracies on the test questions of a guess, and of the option that most training answers have."""
        return {"chance": 1 / len(self.test[0].options), "most_frequent_object": frequency_prior(self.train, self.test)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Relation -> questions in train and test."""
        train, test = (Counter(f"{q.relation} {q.relation_label}" for q in side) for side in (self.train, self.test))
        return {name: {"train": train[name], "test": test[name]} for name in sorted(train | test)}


def prepare_facts(settings: FactSettings) -> FactQuestions:
    """Make the questions and write train.jsonl, test.jsonl, knowledge.jsonl and facts.json, all or nothing.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the facts cannot be read or are too few, or the output cannot be written.
    """
    settings.check()
    questions = make_questions(read_facts(settings.facts), settings)
    try:
        with whole_directory(settings.output.expanduser().resolve()) as folder:
            _write(folder, settings, questions)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"output {settings.output} cannot be written: {reason}. Choose another --output.") from None
    return questions


def make_questions(facts: Sequence[Fact], settings: FactSettings) -> FactQuestions:
    """Questions about the facts, split by subject and relation.

    Each choice depends on the seed and its fact alone, apart from the letters, which are balanced on either side.
    """
    left_out: Counter[str] = Counter()
    chosen = _of_relations(facts, settings.relations)
    drawing = Distractors(facts, by_frequency=settings.distractors == "frequency")
    wrong: dict[Fact, list[str]] = {}
    for fact in _shuffled(chosen, settings.seed):
        if gives_itself_away(fact):
            left_out["the subject contains the object"] += 1
        elif settings.max_facts is not None and len(wrong) == settings.max_facts:
            left_out["beyond --max-facts"] += 1
        elif (options := drawing.draw(fact, settings.num_options, _random(settings, "distractors", fact))) is None:
            left_out["too few other objects in the relation"] += 1
        else:
            wrong[fact] = options
    train, test = _split(list(wrong), settings)
    bank = _bank([*train, *test], chosen, settings)
    ids = {fact: line for line, fact in enumerate(bank)}
    asked = [_side(side, name, wrong, ids, settings) for side, name in ((train, "train"), (test, "test"))]
    return FactQuestions(asked[0], asked[1], [_entry(fact, line) for fact, line in ids.items()], left_out)


def frequency_prior(train: Sequence[ChoiceQuestion], test: Sequence[ChoiceQuestion]) -> float:
    """Accuracy on ``test`` of the option that is the answer to most training questions of the relation. Equal ones
    share the point."""
    counts = Counter((question.relation, normal(question.object)) for question in train)
    right = 0.0
    for question in test:
        often = [counts[question.relation, normal(option)] for option in question.options]
        if often[question.answer_index] == max(often):
            right += 1 / often.count(max(often))
    return right / len(test)


def _of_relations(facts: Sequence[Fact], relations: Sequence[str]) -> list[Fact]:
    known = {name for fact in facts for name in (fact.relation, fact.label)}
    if unknown := [name for name in relations if name not in known]:
        raise ConfigError(f"--relations must be ids or labels in the facts, got {unknown[0]}.")
    return [fact for fact in facts if not relations or fact.relation in relations or fact.label in relations]


def _shuffled(facts: Sequence[Fact], seed: int) -> list[Fact]:
    return sorted(facts, key=lambda fact: derive_seed(seed, "order", *fact.key))


def _random(settings: FactSettings, purpose: str, fact: Fact) -> Random:
    return Random(derive_seed(settings.seed, purpose, *fact.key))


def _split(facts: Sequence[Fact], settings: FactSettings) -> tuple[list[Fact], list[Fact]]:
    """Training and test facts. All facts of a subject and relation are on one side."""
    sizes = Counter(fact.key[:2] for fact in facts)
    wanted = round(len(facts) * settings.test_fraction) if settings.num_test is None else settings.num_test
    held_out: set[tuple[str, str]] = set()
    room = wanted
    for group in sorted(sizes, key=lambda group: derive_seed(settings.seed, "split", *group)):
        if sizes[group] <= room:
            held_out.add(group)
            room -= sizes[group]
    train = [fact for fact in facts if fact.key[:2] not in held_out]
    test = [fact for fact in facts if fact.key[:2] in held_out]
    if not train or not test or (settings.num_test is not None and len(test) < wanted):
        raise DataError(
            f"facts {settings.facts} must give {max(wanted, 1)} test questions and at least one for training, got "
            f"{len(facts)} facts to ask about. Give more facts or change --num-test."
        )
    return train, test


def _bank(used: Sequence[Fact], chosen: Sequence[Fact], settings: FactSettings) -> list[Fact]:
    """The facts of the entries, in an order that says nothing about the questions."""
    size = len(used) if settings.bank_size is None else settings.bank_size
    others = _shuffled(sorted({*chosen} - {*used}, key=lambda fact: fact.key), settings.seed)
    if not len(used) <= size <= len(used) + len(others):
        raise ConfigError(
            f"--bank-size must be from {len(used)}, the facts that are asked about, to {len(used) + len(others)}, all "
            f"facts, got {size}. Change it or --max-facts."
        )
    facts = [*used, *others[: size - len(used)]]
    return sorted(facts, key=lambda fact: derive_seed(settings.seed, "bank", *fact.key))


def _entry(fact: Fact, line: int) -> KnowledgeEntry:
    text = fill(fact.template, fact.subject, fact.object)
    return KnowledgeEntry(line, text, fact.subject, fact.relation, fact.object, fact.template)


def _side(
    facts: Sequence[Fact], name: str, wrong: dict[Fact, list[str]], ids: dict[Fact, int], settings: FactSettings
) -> list[ChoiceQuestion]:
    places = [number % settings.num_options for number in range(len(facts))]
    Random(derive_seed(settings.seed, "letters", name)).shuffle(places)
    return [
        _question(fact, f"{name}-{number}", place, wrong[fact], ids[fact], settings)
        for number, (fact, place) in enumerate(zip(facts, places, strict=True))
    ]


def _question(
    fact: Fact, id: str, place: int, wrong: Sequence[str], entry_id: int, settings: FactSettings
) -> ChoiceQuestion:
    options = (*wrong[:place], fact.object, *wrong[place:])
    frame = _random(settings, "frame", fact).choice(FRAMES)
    lay_out = _random(settings, "layout", fact).choice(LAYOUTS)
    cloze = fill(fact.template, fact.subject, GAP)
    asked = frame.format(cloze=cloze, subject=fact.subject, label=fact.label)
    unseen = unseen_question(fact.relation, fact.label, fact.subject)
    answer = settings.answer_lead + fact.object
    return ChoiceQuestion(
        question_id=id,
        entry_id=entry_id,
        subject=fact.subject,
        relation=fact.relation,
        relation_label=fact.label,
        object=fact.object,
        options=options,
        answer_index=place,
        conversations=_conversation(asked, lay_out(options), answer, settings.request),
        conversations_unseen=_conversation(unseen, in_one_line(options), answer, settings.request),
    )


def _conversation(asked: str, options: str, answer: str, request: str) -> tuple[Message, ...]:
    content = "\n".join(part for part in (asked, options, request) if part)
    return {"role": "user", "content": content}, {"role": "assistant", "content": answer}


def _write(folder: Path, settings: FactSettings, questions: FactQuestions) -> None:
    files = (("train", questions.train), ("test", questions.test), ("knowledge", questions.knowledge))
    records: Sequence[ChoiceQuestion | KnowledgeEntry]
    for name, records in files:
        write_jsonl(folder / f"{name}.jsonl", [asdict(record) for record in records])
    write_json(folder / "facts.json", _summary(settings, questions) | {"sha256": _checksums(folder)})


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.glob("*.jsonl"))}


def _summary(settings: FactSettings, questions: FactQuestions) -> dict[str, Any]:
    chosen: dict[str, Any] = {**asdict(settings), "facts": str(settings.facts)}
    return {
        "settings": {name: value for name, value in chosen.items() if name not in ("output", "force")},
        "facts_sha256": sha256(settings.facts),
        "num_questions": {"train": len(questions.train), "test": len(questions.test)},
        "num_entries": len(questions.knowledge),
        "priors": questions.priors(),
        "left_out": dict(sorted(questions.left_out.items())),
        "relations": questions.counts(),
    }
