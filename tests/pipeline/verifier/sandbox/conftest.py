from collections.abc import Iterator

import pytest

from pipeline.verifier.sandbox.pool import SandboxPool
from tests.support.sandbox import make_pool


@pytest.fixture(scope="package")
def pool() -> Iterator[SandboxPool]:
    """Two workers, a short deadline, 256 MiB."""
    with make_pool(timeout_s=0.5) as shared:
        yield shared


@pytest.fixture(scope="package")
def patient_pool() -> Iterator[SandboxPool]:
    """One worker whose deadline no test reaches."""
    with make_pool(1, timeout_s=60.0) as shared:
        yield shared
