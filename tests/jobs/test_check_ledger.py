"""jobs/check_ledger.py."""

import pytest

from jobs.check_ledger import main
from tests.support.ledgers import changed, good_metrics, good_rows, write_run


def test_exit_codes_and_lines(tmp_path, capsys):
    assert main([str(write_run(tmp_path / "good", good_rows(), good_metrics()))]) == 0
    assert capsys.readouterr().out.startswith("ledger: 8 groups of 4 steps")
    assert main([str(write_run(tmp_path / "bad", changed(good_rows(), 5, checksum="x"), good_metrics()))]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("stage rl, step 3, position 1: version 2 must have")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 0 and "no ledger" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ending:
        main([str(tmp_path / "nowhere")])
    assert ending.value.code == 2


def test_a_search_is_checked_stage_by_stage(tmp_path, capsys):
    write_run(tmp_path / "stages" / "a", good_rows(), good_metrics())
    write_run(tmp_path / "stages" / "b", good_rows()[1:], good_metrics())
    assert main([str(tmp_path)]) == 1
    assert "stage b:\nstage rl, step 1, position 0: must be used" in capsys.readouterr().out
