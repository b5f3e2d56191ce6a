"""The device of these tests. They need ``pipeline`` alone: no Ray, no vLLM, no data sets and no network.

Every test runs twice: on the CPU, which keeps it working, and on a GPU where there is one.

    python -m pytest tests/gpu -m gpu
"""

from pathlib import Path

import pytest
import torch

from tests.support.models import save_tiny_model

HAS_GPU = torch.cuda.is_available()
NEEDS_GPU = pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
