import pytest

from pipeline.verifier import extract, grade
from pipeline.verifier.places.special_tokens import without_special_tokens

TOKENS = [
    "<|im_end|>", "</s>", "<s>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<end_of_turn>",
    "<eos>", "<pad>", "<|end|>", "<|return|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "[EOS]", "[PAD]",
    "[/INST]", "<EOT>", "<eoa>", "<|user|>", "[|endofturn|]", "<seed:eos>", "<turn|>", "[e~[", "<extra_id_1>",
    "<|reserved_special_token_5|>", "[end of text]",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_special_token_at_the_end_is_no_part_of_an_answer(token):
    for text in ("The answer is 8{}", "The answer is 8.{}", "8{}", "$x = 8$ {}\n{}", "<answer>8{}</answer>"):
        assert grade(text.replace("{}", token), "8").outcome == "correct"
    assert extract(f"#### 8{token}{token}\n") == "8"


@pytest.mark.parametrize(
    "text", ["x<|a|>y", "1 < x", "[1, 2]", "[1, 2[", "|x| > 3", "<answer>8</answer>", "<b>", "a<s", ""]
)
def test_mathematics_and_tags_stay(text):
    assert without_special_tokens(text) == text


def test_only_the_end_is_cut():
    assert without_special_tokens("<|im_end|> 8") == "<|im_end|> 8"
