import pytest

from pipeline.config import ModelConfig
from pipeline.errors import DataError
from pipeline.models.hub import resolve_model
from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.entries import entry_token_ids
from pipeline.models.tokenizer import load_tokenizer
from tests.support.models import tiny_tokenizer

MODEL = ModelConfig(name="embedded:smollm2-135m-instruct")


def test_sentences_are_cut_and_padded_to_one_length():
    tokenizer = tiny_tokenizer()  # a token for each byte
    token_ids, num_cut = entry_token_ids(tokenizer, ["ab.", " abcdef.", "abcd"], 5)
    space, a, b, c, d, dot = (tokenizer.encode(letter)[0] for letter in " abcd.")
    assert token_ids.tolist() == [[space, a, b, dot, PADDING], [space, a, b, c, d], [space, a, b, c, d]]
    assert num_cut == 1


def test_many_sentences_are_encoded_in_order(monkeypatch):
    monkeypatch.setattr("pipeline.models.memory.entries.TEXTS_AT_ONCE", 2)
    token_ids, num_cut = entry_token_ids(tiny_tokenizer(), ["a", "bb", "ccc", "d", "e"], 3)
    assert (token_ids != PADDING).sum(dim=1).tolist() == [2, 3, 3, 2, 2] and num_cut == 1
    assert token_ids[3, 1] == tiny_tokenizer().encode("d")[0]


def test_an_empty_entry_is_an_error():
    with pytest.raises(DataError, match="got an empty one as entry 1"):
        entry_token_ids(tiny_tokenizer(), ["a", " ", "b"], 4)


def test_the_embedded_tokenizer_gives_words_of_an_entry_the_tokens_that_they_have_in_a_text():
    tokenizer = load_tokenizer(resolve_model(MODEL), MODEL)
    token_ids, _ = entry_token_ids(tokenizer, ["Eibenstock is located in Germany."], 16)
    tokens = token_ids[token_ids != PADDING].tolist()
    assert tokens[-2:-1] == tokenizer.encode(" Germany")
    assert tokens[:4] == tokenizer.encode(" Eibenstock")[:4]
