from collections.abc import Iterator

import pytest

from pipeline.verifier import Grader


@pytest.fixture(scope="package")
def grader() -> Iterator[Grader]:
    with Grader(num_children=2, timeout_s=10.0) as shared:  # a busy machine must not decide
        yield shared
