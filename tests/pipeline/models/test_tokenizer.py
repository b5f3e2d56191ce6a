import pytest

from pipeline.errors import ModelError
from pipeline.models.tokenizer import batch_token_ids
from pipeline.types import Message, Problem
from tests.support.models import CHAT_TEMPLATE, tiny_tokenizer


def test_a_problem_that_the_chat_template_refuses_is_named():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% if messages[1] %}{{ raise_exception('one message') }}{% endif %}" + CHAT_TEMPLATE
    question: Message = {"role": "user", "content": "1 + 1?"}
    problems = [Problem("a", (question,), "2"), Problem("b", (question, question), "2")]
    with pytest.raises(ModelError, match=r"takes problem b \(roles: user, user\): one message\."):
        batch_token_ids(tokenizer, problems)
