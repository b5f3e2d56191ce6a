"""Puts the wheels that tests/gpu and tests.benchmarks.gpu need into one folder, for a GPU machine without a network.

    python scripts/gpu_wheels.py FOLDER

The machine is expected to have torch, transformers, peft and what these need (numpy, safetensors, ...). Versions are
those of pyproject.toml; pip's own settings decide where they come from.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("pydantic", "omegaconf", "PyYAML", "rich", "pytest", "pytest-timeout")
LIMIT_MIB = 64
"""More than this may not travel."""
GLIBC = ("2_28", "2_17")


def requirements() -> list[str]:
    """The ranges of pyproject.toml for all that is needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    ranges = {re.split(r"[\[<>=~! ]", text)[0]: text for text in listed}
    return [ranges[name] for name in NEEDED]


def download(folder: Path, python: str, machine: str) -> None:
    """Fetch wheels for that Python on Linux, whatever runs here. Raises CalledProcessError if pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
    command += [f"--platform=manylinux_{version}_{machine}" for version in GLIBC]
    subprocess.run([*command, f"--platform=manylinux2014_{machine}", *requirements()], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python (default: 3.12)")
    parser.add_argument("--machine", default="x86_64", help="its processor, such as aarch64 (default: x86_64)")
    arguments = parser.parse_args()
    try:
        download(arguments.folder, arguments.python, arguments.machine)
    except subprocess.CalledProcessError as error:
        sys.exit(f"gpu_wheels: pip found no wheels for all of {', '.join(requirements())} (exit {error.returncode}).")
    files = [path for path in arguments.folder.rglob("*") if path.is_file()]
    size_mib = sum(path.stat().st_size for path in files) / 2**20
    if size_mib >= LIMIT_MIB:
        sys.exit(f"gpu_wheels: {arguments.folder} must be smaller than {LIMIT_MIB} MiB, got {size_mib:.1f}. Empty it.")
    print(f"{len(files)} files, {size_mib:.1f} MiB in {arguments.folder}. On the machine, from the repository's root:")
    print(f"    python -m pip install --no-index --find-links {arguments.folder} {' '.join(NEEDED)}")
    print("    python -m pytest tests/gpu -m gpu")
    print("    python -m tests.benchmarks.gpu --output gpu.json")


if __name__ == "__main__":
    main()
