"""The start is measured by what its processes log."""

import pytest

from tests.benchmarks.start import _logged_at


def test_a_part_is_done_when_its_process_says_so(tmp_path):
    log = tmp_path / "rollout_0.log"
    lines = ["2026-01-01 10:00:00,250 WARNING vllm: engine for", "2026-01-01 10:00:01,500 INFO actors: engine for x"]
    log.write_text("\n".join([*lines, "2026-01-01 10:00:09,000 INFO actors: engine for x\n"]))
    assert _logged_at(log, "engine for ") % 60 == pytest.approx(1.5)


def test_a_part_that_no_process_names_is_an_error(tmp_path):
    (tmp_path / "rollout_0.log").write_text("")
    with pytest.raises(SystemExit, match="rollout_0"):
        _logged_at(tmp_path / "rollout_0.log", "engine for ")
