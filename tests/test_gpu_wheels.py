"""The folder of wheels that scripts/gpu_wheels.py makes, from an index that is a folder of empty packages."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = {"pydantic": "2.14.4", "omegaconf": "2.4.0", "PyYAML": "6.0.3", "rich": "15.0.0", "pytest": "9.2.0"}
PACKAGES |= {"pytest-timeout": "2.4.0"}


def offer(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name, version in PACKAGES.items():
        offer(tmp_path / "index", name, version)
    return tmp_path / "index"


def make(index: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    command = [sys.executable, str(ROOT / "scripts/gpu_wheels.py"), str(folder)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_one_folder_holds_all_that_is_needed_and_the_commands_are_said(index, tmp_path):
    done = make(index, tmp_path / "wheels")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "wheels").iterdir())) == len(PACKAGES)
    assert f"6 files, 0.0 MiB in {tmp_path / 'wheels'}" in done.stdout
    assert f"--no-index --find-links {tmp_path / 'wheels'} {' '.join(PACKAGES)}" in done.stdout
    assert "python -m pytest tests/gpu -m gpu" in done.stdout


def test_a_folder_of_64_mib_is_refused(index, tmp_path):
    (tmp_path / "wheels").mkdir()
    with (tmp_path / "wheels/left_over.whl").open("wb") as file:
        file.truncate(64 * 2**20)
    done = make(index, tmp_path / "wheels")
    assert done.returncode == 1
    assert "must be smaller than 64 MiB, got 64.0" in done.stderr and not done.stdout


def test_a_missing_wheel_is_an_error(index, tmp_path):
    next(index.glob("omegaconf-*")).unlink()
    done = make(index, tmp_path / "wheels")
    assert done.returncode == 1 and "pip found no wheels" in done.stderr
