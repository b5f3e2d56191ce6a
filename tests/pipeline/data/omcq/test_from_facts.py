import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.omcq import ChoiceQuestion, read_knowledge, read_questions
from pipeline.data.omcq.facts import normal, read_facts
from pipeline.data.omcq.from_facts import FactSettings, frequency_prior, make_questions, prepare_facts
from pipeline.data.omcq.wordings import FRAMES, LAYOUTS
from pipeline.errors import ConfigError, DataError
from tests.conftest import SHARED
from tests.support.omcq import CAPITAL, CAPITALS, write_facts


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return write_facts(tmp_path / "facts.jsonl")


def settings(facts: Path, **chosen) -> FactSettings:
    return FactSettings(facts, facts.parent / "out", **{"num_test": 4, **chosen})


def made(facts: Path, **chosen):
    return make_questions(read_facts(facts), settings(facts, **chosen))


def test_the_files_are_read_as_they_were_made(facts):
    questions = prepare_facts(settings(facts))
    folder = facts.parent / "out"
    assert read_questions(folder / "train.jsonl") == questions.train
    assert read_questions(folder / "test.jsonl") == questions.test
    assert read_knowledge(folder / "knowledge.jsonl") == questions.knowledge
    summary = json.loads((folder / "facts.json").read_text())
    assert summary["num_questions"] == {"train": len(questions.train), "test": 4}
    assert summary["priors"] == questions.priors() and summary["priors"]["chance"] == 1 / 3


def test_each_question_points_to_the_sentence_that_answers_it(facts):
    questions = made(facts)
    for question in (*questions.train, *questions.test):
        entry = questions.knowledge[question.entry_id]
        assert (entry.subject, entry.relation, entry.object) == (question.subject, question.relation, question.object)
        assert entry.text.endswith(f" {question.object}.")
        assert question.conversations[1]["content"] == f" {question.object}"
        content = question.conversations[0]["content"]
        assert any(lay_out(question.options) in content for lay_out in LAYOUTS)
        assert question.conversations[0]["content"].endswith("\nAnswer with the text of the right option.")


def test_a_true_object_is_never_a_wrong_option(tmp_path):
    """Kenya has two languages, and Lima is related to Peru by its twin's row alone."""
    twin = {"relation_id": "P190", "relation_label": "twinned", "template": "[X] and [Y] are twins ."}
    more = [{"subject": "LIMA ", "object": "Peru", **twin}, {"subject": "Ｋenya", "object": "Nairobi", **CAPITAL}]
    facts = write_facts(tmp_path / "facts.jsonl", *more, {"subject": "Italy", "object": "Tokyo", **twin})
    for seed in range(10):
        questions = made(facts, seed=seed)
        for question in (*questions.train, *questions.test):
            wrong = {normal(o) for o in question.options} - {normal(question.object)}
            assert len(wrong) == 2
            assert not (question.subject == "Kenya" and wrong & {"english", "swahili"})
            assert not (question.subject == "Italy" and wrong & {"tokyo", "rome"})
        assert sum(normal(entry.subject) == "kenya" and entry.relation == "P36" for entry in questions.knowledge) == 1


def test_letters_are_balanced_and_sides_share_no_subject_and_relation(facts):
    for seed in range(5):
        questions = made(facts, seed=seed, num_test=5)
        for side in (questions.train, questions.test):
            counts = Counter(question.answer_index for question in side)
            assert max(counts.values()) - min(counts[place] for place in range(3)) <= 1
        train, test = ({(q.subject, q.relation) for q in side} for side in (questions.train, questions.test))
        assert len(questions.test) == 5 and not train & test


def test_the_unseen_wording_is_none_that_training_uses(facts):
    questions = made(facts)
    firsts = {question.conversations[0]["content"].split("\n")[0] for question in questions.train}
    assert len(FRAMES) >= 4 and len({first.split()[0] for first in firsts}) >= 4  # frames vary
    for question in (*questions.train, *questions.test):
        seen, unseen = question.conversations[0]["content"], question.conversations_unseen[0]["content"]
        assert unseen.split("\n")[0] not in seen and "(1) " + question.options[0] in unseen
        assert question.conversations[1] == question.conversations_unseen[1]


def test_a_subject_that_names_its_object_is_not_asked_about_but_may_be_in_the_bank(tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl", {"subject": "Mexico City", "object": "mexico", **CAPITAL})
    questions = made(facts)
    assert questions.left_out == {"the subject contains the object": 1}
    assert len(questions.knowledge) == 17 and len(made(facts, bank_size=18).knowledge) == 18


def test_the_same_seed_gives_the_same_questions_and_another_seed_others(facts):
    assert made(facts) == made(facts) != made(facts, seed=1)


def test_relations_and_numbers_of_facts_are_limited(facts):
    questions = made(facts, relations=("capital",), max_facts=8, num_test=2)
    assert {q.relation for q in questions.train + questions.test} == {"P36"}
    assert (len(questions.train), len(questions.test), len(questions.knowledge)) == (6, 2, 8)
    assert questions.left_out == {"beyond --max-facts": len(CAPITALS) - 8}


def test_the_prior_is_the_share_that_the_most_frequent_training_object_scores(facts):
    """Training answers: English twice, Spanish once. Swahili was never an answer, and neither were the last three."""
    asked = made(facts).train[0]

    def asking(object: str, *others: str) -> ChoiceQuestion:
        return replace(asked, relation="P37", object=object, options=(object, *others), answer_index=0)

    train = [asking("English", "Spanish"), asking("English", "Spanish"), asking("Spanish", "English")]
    assert frequency_prior(train, [asking("English", "Spanish", "Swahili")]) == 1
    assert frequency_prior(train, [asking("Spanish", "English", "Swahili")]) == 0
    assert frequency_prior(train, [asking("Thai", "Lao", "Khmer")]) == pytest.approx(1 / 3)
    assert frequency_prior(train, [replace(asking("English", "Spanish"), relation="P1")]) == 1 / 2


ERRORS = {
    "too few": ({"num_test": 17}, DataError, "must give 17 test questions and at least one for training, got 17 facts"),
    "bank": ({"bank_size": 3}, ConfigError, "--bank-size must be from 17, the facts that are asked about, to 17"),
    "relation": ({"relations": ("P1",)}, ConfigError, "--relations must be ids or labels in the facts, got P1"),
    "options": ({"num_options": 1}, ConfigError, "--num-options must be at least 2, got 1"),
    "share": ({"test_fraction": 1.0}, ConfigError, "--test-fraction must be above 0 and below 1, got 1"),
}


@pytest.mark.parametrize(("chosen", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_settings_that_cannot_be_met_are_errors(facts, chosen, kind, message):
    with pytest.raises(kind, match=message):
        prepare_facts(settings(facts, **chosen))
    assert not (facts.parent / "out").exists()


def test_force_replaces_only_what_was_made_from_facts(facts):
    mine = facts.parent / "out" / "mine.txt"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(DataError, match="is not empty"):
        prepare_facts(settings(facts, force=True))
    mine.unlink()
    prepare_facts(settings(facts))
    with pytest.raises(DataError, match="is not empty"):
        prepare_facts(settings(facts))
    prepare_facts(settings(facts, seed=1, force=True))


def test_a_row_that_is_no_fact_is_named(tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl", {"subject": "X", "object": "Y", **CAPITAL, "template": "[X] is"})
    with pytest.raises(DataError, match=r"facts\.jsonl row 18: template must hold \[X\] and \[Y\] once each"):
        read_facts(facts)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
def test_real_facts_leave_the_most_frequent_object_little(tmp_path):
    facts = read_facts(SHARED / "omcq" / "trex_facts.jsonl")
    chosen = FactSettings(tmp_path, tmp_path, max_facts=3600, num_test=600, bank_size=4096)
    questions = make_questions(facts, chosen)
    assert (len(questions.train), len(questions.test), len(questions.knowledge)) == (3000, 600, 4096)
    assert questions.priors()["most_frequent_object"] < 0.5
