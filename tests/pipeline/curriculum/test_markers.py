import pytest

from pipeline.curriculum.markers import read_markers, write_marker
from pipeline.errors import CheckpointError


def test_results_come_back_by_key(tmp_path):
    directory = tmp_path / "results"
    assert read_markers(directory) == {}
    write_marker(directory, "k2", {"score": 0.5})
    write_marker(directory, "k1", {"score": 0.25, "name": "level_1"})
    assert read_markers(directory) == {
        "k1": {"key": "k1", "score": 0.25, "name": "level_1"},
        "k2": {"key": "k2", "score": 0.5},
    }


def test_a_broken_marker_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"x\.json cannot be read: .* Delete it to train its stage again"):
        read_markers(tmp_path)
