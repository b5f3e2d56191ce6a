import pytest
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig

from pipeline.errors import ModelError
from pipeline.models.context import context_length, read_model_config

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=2048), 2048),
        (LlamaConfig(max_position_embeddings=2048, rope_parameters=LINEAR), 8192),  # stretched four times
        (LlamaConfig(max_position_embeddings=2048, rope_parameters=YARN), 2048),  # stretched already
        (GPT2Config(n_positions=256), 256),
        (PreTrainedConfig(), None),
    ],
)
def test_the_longest_text_of_a_model(config, length):
    assert context_length(config) == length


def test_a_model_without_a_configuration_is_named(tmp_path):
    with pytest.raises(ModelError, match=f"model {tmp_path} cannot be loaded"):
        read_model_config(tmp_path, trust_remote_code=False)
