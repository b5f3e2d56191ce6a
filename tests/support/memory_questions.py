"""Questions about the sentences of ``memory_models``."""

from pipeline.data.omcq import ChoiceQuestion, KnowledgeEntry
from tests.support.memory_models import NAMES, PLACES

TEMPLATE = "[X] is in [Y]"
KNOWLEDGE = [
    KnowledgeEntry(index, f"{name} is in {PLACES[index % 3]}", name, "P1", PLACES[index % 3], TEMPLATE)
    for index, name in enumerate(NAMES)
]
"""Bo is in Rome, Abu in Oslo, Cleo in Lima, Dora in Rome."""


def question(entry: KnowledgeEntry, relation: str = "P1") -> ChoiceQuestion:
    """Where an entry's subject is."""
    asked = f"Where is {entry.subject}?\nA: Rome\nB: Oslo\nC: Lima"
    unseen = f"Tell me the city of {entry.subject}: (1) Rome (2) Oslo (3) Lima"
    answer = {"role": "assistant", "content": f" {entry.object}"}
    return ChoiceQuestion(
        question_id=f"q{entry.id}",
        entry_id=entry.id,
        subject=entry.subject,
        relation=relation,
        relation_label="place",
        object=entry.object,
        options=PLACES,
        answer_index=PLACES.index(entry.object),
        conversations=({"role": "user", "content": asked}, answer),  # type: ignore[arg-type]
        conversations_unseen=({"role": "user", "content": unseen}, answer),  # type: ignore[arg-type]
    )


QUESTIONS = [question(entry, "P1" if entry.id < 3 else "P2") for entry in KNOWLEDGE]
