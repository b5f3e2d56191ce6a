"""Test problems that the training data contains."""

import pytest

from pipeline.evaluation.datasets import load_data_set, split_questions
from pipeline.evaluation.overlap import TrainingQuestions
from tests.conftest import SHARED
from tests.support.evaluations import evaluation_config

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which a user's clone lacks")


def test_questions_of_the_training_data_are_found_exactly_and_normalised():
    trained = TrainingQuestions(["What is 3 + 4?", "Name  a prime."])
    assert trained.find("What is 3 + 4? ") == "exact"
    assert trained.find("name a PRIME") == trained.find("what is $3+4$") == "normalised"
    for other in ("What is 3 - 4?", "What is 3 + 4!?", "What is 3.4?", "What is 3 + -4?"):
        assert trained.find(other) is None
    assert trained.find("What is 3 + 5?") is None


@needs_shared
@pytest.mark.usefixtures("read_once")
def test_math_shares_three_problems_with_its_training_data():
    settings = evaluation_config("math", data_root=str(SHARED), guard={"train_data": ["math"]})
    trained = TrainingQuestions(split_questions("math", "train", settings))
    overlaps = [trained.find(problem.question) for problem in load_data_set("math", settings).problems]
    assert (overlaps.count("exact"), overlaps.count("normalised")) == (1, 2)
