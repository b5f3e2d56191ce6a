import sys

import pytest

from actors.driver.dry_run import dry_run
from pipeline.cli import JobArguments
from pipeline.errors import ConfigError
from tests.conftest import CONFIGS


def test_a_missing_tracking_library_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    arguments = JobArguments(str(CONFIGS / "demo.yaml"), ["tracking.backends=[wandb]"], None, True)
    with pytest.raises(ConfigError, match=r"wandb needs the wandb library\. Run `pip install \"gradus\[wandb\]\"`\."):
        dry_run(arguments)
