import pytest

from pipeline.config import ModelConfig
from pipeline.data.knowledge import entry_token_ids
from pipeline.errors import DataError
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer
from tests.support.models import tiny_tokenizer

MODEL = ModelConfig(name="embedded:smollm2-135m-instruct")


def test_sentences_are_cut_and_padded_to_one_length():
    tokenizer = tiny_tokenizer()  # a token for each byte
    entries = entry_token_ids(tokenizer, ["ab.", " abcdef.", "abcde"], knowledge_length=5, pad_id=9)
    a, b, c, d, e, dot = (tokenizer.encode(letter)[0] for letter in "abcde.")
    assert entries.token_ids.tolist() == [[a, b, dot, 9, 9], [a, b, c, d, e], [a, b, c, d, e]]
    assert entries.mask.tolist() == [[True, True, True, False, False], [True] * 5, [True] * 5]
    assert entries.cut == (1,)


def test_many_sentences_are_encoded_in_order(monkeypatch):
    monkeypatch.setattr("pipeline.data.knowledge.TEXTS_AT_ONCE", 2)
    entries = entry_token_ids(tiny_tokenizer(), ["a", "bb", "ccc", "d", "e"], 2)
    assert entries.mask.sum(axis=1).tolist() == [1, 2, 2, 1, 1] and entries.cut == (2,)
    assert entries.token_ids[3, 0] == tiny_tokenizer().encode("d")[0]


def test_an_empty_entry_is_an_error():
    with pytest.raises(DataError, match="got an empty one as entry 1"):
        entry_token_ids(tiny_tokenizer(), ["a", " ", "b"])


def test_the_embedded_tokenizer_gives_an_object_the_tokens_that_it_has_after_a_space():
    embedded_tokenizer = load_tokenizer(resolve_model(MODEL), MODEL)
    entries = entry_token_ids(embedded_tokenizer, ["Eibenstock is located in Germany."])
    tokens = entries.token_ids[0, entries.mask[0]].tolist()
    assert tokens[-2:-1] == embedded_tokenizer.encode(" Germany")
    assert embedded_tokenizer.encode("Germany")[0] not in tokens
