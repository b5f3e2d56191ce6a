"""Loads the model of a stage: the policy, or a frozen backbone with an explicit memory."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from actors.learner.ranks import Ranks
from actors.learner.setup import StageSetup
from pipeline.config import Config, MemoryConfig, MemorySFTConfig, RouterConfig
from pipeline.data.omcq import read_texts
from pipeline.data.table import data_cache
from pipeline.models.attention import use_causal_sdpa
from pipeline.models.hub import model_files, resolve_model
from pipeline.models.memory.attach import count_parameters, set_trainable
from pipeline.models.memory.loading import load_memory_model
from pipeline.models.policy import load_policy, turn_off_dropout
from pipeline.models.tokenizer import Tokenizer, load_tokenizer
from pipeline.models.weight_names import check_weight_names
from pipeline.runs.directory import RunDirectory
from pipeline.runs.notices import notify

logger = logging.getLogger(__name__)


def load_stage_model(setup: StageSetup, ranks: Ranks) -> tuple[nn.Module, Tokenizer]:
    """The model and its tokenizer. Only SFT has dropout: in GRPO old, new and reference logprobs must differ only by
    the weights, and a memory reads the hidden states of a frozen backbone."""
    config = setup.config
    path = resolve_model(config.model)
    if ranks.size > 1:  # the weights that train are compared later, but frozen ones are not
        ranks.check_equal(str(model_files(path, with_code=config.model.trust_remote_code)), "model files")
    tokenizer = load_tokenizer(path, config.model, chat=config.data.uses_chat_template)
    if config.memory:
        model = _with_memory(setup, config.memory, path, tokenizer, ranks)
    else:
        model = load_policy(path, config.model)
        check_weight_names(model, path, config.model.name)
    model.train()
    if config.memory is None or config.memory.positions == "all":  # others attend to padded prompts in a cache
        use_causal_sdpa(model)
    if setup.stage.kind != "sft":
        turn_off_dropout(model)
    return model, tokenizer


def _with_memory(setup: StageSetup, memory: MemoryConfig, path: Path, tokenizer: Tokenizer, ranks: Ranks) -> nn.Module:
    config: Config = setup.config
    texts = read_texts(Path(memory.knowledge))
    arguments: Any = (path, config.model, memory, tokenizer, texts, data_cache(config), config.seed)
    loaded = load_memory_model(*arguments, pretrained=ranks.from_first(lambda: not _continues(setup)))
    backbone: nn.Module = loaded.backbone
    settings = setup.stage.settings
    assert isinstance(settings, MemorySFTConfig | RouterConfig)
    is_router = setup.stage.kind == "router" and memory.query == "pooled"
    set_trainable(loaded.memory, settings.train, router=is_router)
    counts = count_parameters(backbone)
    if ranks.is_first:
        notify(f"stage {setup.stage.name}: {counts}")
    return backbone


def _continues(setup: StageSetup) -> bool:
    """The stage takes its weights from a checkpoint."""
    has_checkpoint = setup.parent is not None or RunDirectory(setup.run_path).checkpoints.latest() is not None
    return has_checkpoint and setup.stage.carry.weights
