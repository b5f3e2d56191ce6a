"""How a job ends when something goes wrong."""

import pytest

from pipeline.cli import RESUMABLE, user_errors
from pipeline.errors import ConfigError, first_line


@pytest.mark.parametrize(
    ("error", "interrupted", "code", "message"),
    [
        (ConfigError("seed must be at least 0, got -1"), RESUMABLE, 2, "error: seed must be at least 0, got -1"),
        (KeyboardInterrupt(), RESUMABLE, 130, "interrupted. Continue with --resume latest."),
        (KeyboardInterrupt(), "interrupted.", 130, "interrupted."),
    ],
)
def test_a_user_error_and_ctrl_c_end_in_one_line_and_an_exit_code(capsys, error, interrupted, code, message):
    with pytest.raises(SystemExit) as ending, user_errors(interrupted):
        raise error
    assert ending.value.code == code
    assert capsys.readouterr() == ("", f"{message}\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("\n disk full\nmore"), "disk full"), (ImportError(), "ImportError"), (ValueError("  "), "ValueError")],
)
def test_an_error_without_text_is_named_by_its_type(error, line):
    assert first_line(error) == line
