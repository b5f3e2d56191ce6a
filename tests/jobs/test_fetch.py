import pytest

from jobs.fetch import main


def test_a_config_error_has_no_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--config", str(tmp_path / "none.yaml")])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config file") and "Traceback" not in error


def test_it_prints_where_the_model_is_and_how_much_data_there_is(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "recipe.yaml").write_text("stages: [{name: warm, kind: sft}]")
    main(["--config", str(tmp_path / "recipe.yaml"), f"model.name={tmp_path}"])
    assert capsys.readouterr().out == (
        f"model {tmp_path}: {tmp_path}\ndata embedded:arithmetic: 3000 training and 1000 held-out problems\n"
    )
