"""A tiny random Llama and a byte-level tokenizer with a chat template, made without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.types import RolloutGroup
from pipeline.verifier import Verdict

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(eos: str = "<|im_end|>", special: Sequence[str] = ("<|im_start|>",)) -> Any:
    """One token per byte, and three special ones: 259 in all.

    Args:
        special: special tokens beside eos and the one for padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama(seed: int = 0, *, tie_word_embeddings: bool = False) -> Any:
    """95 k random float32 weights (tied: 78 k), spread so wide that no distribution is flat.

    Torch keeps to one thread from here on: on a busy machine several make such small matrices 50 times slower.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=tie_word_embeddings,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer().eos_token_id,
        pad_token_id=tiny_tokenizer().pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_tiny_moe(directory: Path) -> Path:
    """A tiny random GLM-4-MoE: one dense layer, one with four experts, whose router has a bias that no gradient trains
    (a buffer). In memory the experts are one tensor, in the files one each."""
    import torch
    from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "head_dim": 16}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = Glm4MoeForCausalLM(Glm4MoeConfig(vocab_size=259, **sizes, **heads, **experts))
        model.model.layers[1].mlp.gate.e_score_correction_bias.copy_(torch.tensor([0.1, -0.2, 0.3, -0.4]))
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def save_tiny_model(directory: Path, seed: int = 0, *, tie_word_embeddings: bool = False) -> Path:
    """An ordinary checkpoint: config, weights and tokenizer."""
    tiny_llama(seed, tie_word_embeddings=tie_word_embeddings).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def letter_reward(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """A reward that random text can earn: the share of its bytes that are letters."""
    return [sum(c.isascii() and c.isalpha() for c in item.text) / 16 for item in group.completions]
