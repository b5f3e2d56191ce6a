"""Explicit memory: a bank of knowledge entries that a frozen backbone reads through trained modules."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import StrictModel

_PRESETS: dict[str, dict[str, Any]] = {
    "explicitlm": {},
    "routed": {
        "query": "pooled",
        "query_layer": 1,
        "decode": "attention",
        "selection": "given",
        "positions": "answer",
        "gate_rank": None,
        "num_candidates": 512,
        "counterfactual_frac": 2 / 3,
        "similarity_loss_coef": 0.0,
        "diversity_loss_coef": 0.0,
    },
}


class MemoryConfig(StrictModel):
    """The explicit memory of a model, and the form in which it is trained. docs/memory.md.

    ``preset`` sets the defaults of the settings below it.
    """

    preset: Literal["explicitlm", "routed"] = "explicitlm"
    """``explicitlm``: every position of every layer looks for an entry of its own (arXiv:2511.01581). ``routed``: one
    query for each prompt, whose entries all layers share. This form works on small models."""
    knowledge: str
    """The entries: a JSONL file of ``{"id": ..., "text": ...}``, one sentence each, as prepare_data.py writes it."""
    knowledge_num: int = Field(4096, ge=4)
    """Slots of the bank: a square number, at least as many as there are entries."""
    knowledge_length: int = Field(16, ge=1)
    """Tokens of an entry. Longer sentences are cut off, and counted."""
    knowledge_dim: int = Field(256, ge=2)
    """Dimensions of queries and product keys: even, at most the backbone's hidden size."""
    num_candidates: int = Field(16, ge=1)
    """Entries that the product keys find for a query."""
    num_selected: int = Field(1, ge=1)
    """Entries that the fusion reads at once: the best of the candidates. Above 1 only with decode=attention."""
    gate_rank: int | None = Field(128, ge=1)
    """Rank of the gate's projections. None: full matrices."""
    fusion_rank: int | None = Field(128, ge=1)
    """Rank of the fusion's projections. None: full matrices."""
    layers: list[int] | None = Field(None, min_length=1)
    """Decoder layers, from 0, after which the memory is read. None: all."""
    query: Literal["token", "pooled"] = "token"
    """``token``: each position of each layer has a query of its own. ``pooled``: one query for each prompt."""
    query_layer: int = Field(3, ge=0)
    """``pooled``: the query is made of the hidden states after this many decoder layers. 0: of the embeddings."""
    decode: Literal["mean", "attention"] = "mean"
    """How an entry is read: the mean of its token embeddings, or attention over them."""
    selection: Literal["straight_through", "given"] = "straight_through"
    """Which entry the fusion reads while it trains: one drawn by straight-through Gumbel-softmax, or the example's own,
    ``entry_id``, among others that the router finds. Evaluations always take the best candidates."""
    positions: Literal["all", "answer"] = "all"
    """Positions that read the memory: all, or those from the prompt's last token on."""
    gumbel_temperature: float = Field(1.0, gt=0)
    """Temperature of the Gumbel-softmax."""
    similarity_loss_coef: float = Field(0.1, ge=0)
    """Weight in the loss of the negative cosine similarity of the selected entry."""
    diversity_loss_coef: float = Field(0.05, ge=0)
    """Weight in the loss of the mean cosine similarity between different candidates."""
    counterfactual_frac: float = Field(0.0, ge=0, le=1)
    """Share of the examples in which another option is written into the entry and becomes the answer. Without such
    examples the model learns which answers are frequent."""
    prompt_cache_gib: float = Field(6.0, ge=0)
    """Memory, in GiB, for the states of training prompts, which positions=answer leaves constant. States that do not
    fit are computed in every step."""
    recompute_cache: bool = False
    """Compute the knowledge cache (embeddings, slots and keys of the bank) even if it is on the disk."""
    router_path: str | None = None
    """File ``memory_step_N.safetensors`` of a pretrained router: gates, keys and knowledge space."""
    fusion_path: str | None = None
    """File ``memory_step_N.safetensors`` of a pretrained fusion: everything but the router."""

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**_PRESETS.get(str(values.get("preset")), {}), **values}

    @field_validator("knowledge_num")
    @classmethod
    def _is_a_square(cls, knowledge_num: int) -> int:
        if math.isqrt(knowledge_num) ** 2 != knowledge_num:
            raise ValueError("must be a square number: two sets of its root of keys address the slots")
        return knowledge_num

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "MemoryConfig":
        if self.knowledge_dim % 2:
            raise ValueError(f"knowledge_dim must be even, got {self.knowledge_dim}: each half has keys of its own")
        if self.num_candidates > self.knowledge_num:
            raise ValueError(
                f"num_candidates must be at most knowledge_num, got {self.num_candidates} and {self.knowledge_num}"
            )
        if self.num_selected > self.num_candidates:
            raise ValueError(
                f"num_selected must be at most num_candidates, got {self.num_selected} and {self.num_candidates}"
            )
        if self.num_selected > 1 and self.decode == "mean":
            raise ValueError(f"num_selected must be 1 with decode=mean, got {self.num_selected}. Use decode=attention")
        if (self.query == "pooled") != (self.selection == "given"):
            raise ValueError("query=pooled and selection=given need each other: one choice is given to all layers")
        if self.query == "pooled" and self.positions == "all":
            raise ValueError("positions must be answer with query=pooled: the query is made of the whole prompt")
        if self.query == "token" and (self.positions == "answer" or self.decode == "attention"):
            raise ValueError(
                "positions must be all and decode mean with query=token: each position reads its own entry"
            )
        if self.counterfactual_frac and self.selection != "given":
            raise ValueError("counterfactual_frac must be 0 without selection=given: it rewrites the given entry")
        return self

    @property
    def side(self) -> int:
        """Keys in each of the two sets."""
        return math.isqrt(self.knowledge_num)
