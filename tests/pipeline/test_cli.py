"""How a job ends when something goes wrong."""

import pytest

from pipeline.cli import RESUMABLE, check_output_root, parse_job_arguments, user_errors
from pipeline.errors import ConfigError, first_line
from pipeline.runs.directory import RunDirectory


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


@pytest.mark.parametrize(
    ("root", "reason"),
    [("x" * 300, "File name too long"), ("a\0b", "embedded null"), ("~nobody-has-this-name/x", "home directory")],
)
def test_a_place_for_runs_that_cannot_be_written_is_named(root, reason):
    with pytest.raises(ConfigError, match=f"output.root must be writable, got .*{reason}"):
        check_output_root(root)


def test_a_path_that_is_too_long_ends_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"), user_errors():
        RunDirectory.open("x" * 300, "")
    assert capsys.readouterr().err == f"error: the path {'x' * 60}... cannot be used: File name too long\n"


def test_an_argument_that_is_not_utf_8_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_job_arguments("", "demo.yaml", ["tracking.run_name=\udcff"])
    assert "arguments must be UTF-8, got 'tracking.run_name=\\udcff'" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("\n disk full\nmore"), "disk full"), (ImportError(), "ImportError"), (ValueError("  "), "ValueError")],
)
def test_an_error_without_text_is_named_by_its_type(error, line):
    assert first_line(error) == line
