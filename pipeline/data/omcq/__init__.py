"""Object multiple choice: questions whose answer is one of several objects, and the sentences that hold the answers."""

from pipeline.data.omcq.records import (
    ChoiceQuestion,
    KnowledgeEntry,
    has_objects,
    read_knowledge,
    read_questions,
    read_texts,
)

__all__ = ["ChoiceQuestion", "KnowledgeEntry", "has_objects", "read_knowledge", "read_questions", "read_texts"]
