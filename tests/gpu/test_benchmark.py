"""The benchmark runs, and it and these tests need neither Ray nor vLLM, data sets, other layers or a network."""

import json
import subprocess
import sys

import pytest

from pipeline.models.memory_estimate import ModelShape
from pipeline.training.batching import TokenSequence
from tests.benchmarks.gpu import PEAKS, step_flops
from tests.conftest import ROOT

ALONE = """
import importlib, pkgutil, socket, sys
from importlib.machinery import PathFinder

HIDDEN = {"actors", "jobs", "ray", "vllm", "datasets", "math_verify", "trl", "reasoning_gym", "gguf", "matplotlib"}

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

sys.meta_path[:] = [Hiding if each is PathFinder else each for each in sys.meta_path if "Editable" not in str(each)]

def refuse(*_):
    raise OSError("there is no network")

socket.socket.connect = refuse
import tests.gpu

for module in pkgutil.iter_modules(tests.gpu.__path__):
    importlib.import_module(f"tests.gpu.{module.name}")
importlib.import_module("tests.benchmarks.gpu").main(sys.argv[1:])
found = HIDDEN & {name.partition(".")[0] for name in sys.modules}
assert not found, found
"""


def test_everything_here_needs_pipeline_alone(device, tmp_path):
    output = tmp_path / "gpu.json"
    options = ["--device", device.type, "--tiny", "--seconds", "0.1", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert [(row["model"], row["algorithm"]) for row in results["rows"]] == [("tiny", "SFT"), ("tiny", "GRPO")]
    for row in results["rows"]:
        assert row["tokens_per_s"] > 0 and 0 < row["of_measured_peak"] < 1
        assert f"tiny, {row['algorithm']}" in done.stdout and f"{row['tokens_per_s']:,.0f}" in done.stdout


def test_operations_of_a_step_by_hand():
    shape = ModelShape(hidden=2, intermediate=3, num_layers=1, queries=2, keys=2, vocab=5, is_tied=True)
    # Four products of 2 x 2 and three of 2 x 3 for each of 5 tokens, one of 2 x 5 for each of 3 targets; attention.
    assert step_flops(shape, [TokenSequence((0, 1), (2, 3, 4))]) == 6 * (34 * 5 + 10 * 3) + 6 * 2 * 5**2


@pytest.mark.parametrize(
    ("card", "peak"),
    [("NVIDIA H100 80GB HBM3", 989.5), ("NVIDIA H100 PCIe", 756.5), ("NVIDIA L40S", 362.0), ("Tesla T4", None)],
)
def test_the_most_special_name_of_a_card_comes_first(card, peak):
    assert next((value for name, value in PEAKS.items() if name in card), None) == peak
