"""The README's way to a cluster, typed as it is written: a head, a second node and a client, each with its own home.

They share this machine. So the test chooses other ports, and copies what the README fetches from the head.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from actors.driver import local_head
from pipeline.errors import ClusterError
from pipeline.runs.metrics_log import read_metrics
from tests.conftest import ROOT
from tests.support.jobs import only_run
from tests.support.models import save_tiny_model
from tests.support.recipes import sft_recipe

pytestmark = pytest.mark.slow

NUM_STEPS = 20
GAUGE = re.compile(r'ray_gradus_(\w+)\{.*run="(.*)",stage="(.*)"\} (.+)')


def commands(heading: str, edits: Mapping[str, str]) -> str:
    """The README's commands below a comment, each edited text among them."""
    block = re.search(rf"^# {heading}$(.*?)^(?:```|# )", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert block, f"README.md must tell what to type {heading.lower()}"
    script = block[1]
    for text, replacement in edits.items():
        assert text in script
        script = script.replace(text, replacement)
    return script


def environment(home: Path) -> dict[str, str]:
    """The environment of a shell with another home, in which nothing was said about Ray."""
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # or matplotlib would search for fonts again
    quick = {"RAY_metrics_report_interval_ms": "1000", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, "HOME": str(home), "PATH": path, "XDG_CACHE_HOME": cache, **quick}


@contextmanager
def node(script: str, home: Path) -> Iterator[None]:
    """A node started by these commands. It and all its processes end with the block, or with this process."""
    typed = f"set -e\n{script}\necho READY\nsleep 600"
    keeper = subprocess.Popen(
        [sys.executable, local_head.__file__, str(home / "ray"), "bash", "-c", typed],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert keeper.stdout
        printed: list[bytes] = []
        while (line := keeper.stdout.readline()) != b"READY\n":
            assert line, b"".join(printed).decode()
            printed.append(line)
        yield
    finally:
        keeper.communicate(b"stop")


@dataclass(frozen=True)
class Cluster:
    head_home: Path
    dashboard_url: str

    def submit(self, home: Path, *entrypoint: str, forgotten: str | None = None) -> "subprocess.Popen[bytes]":
        """Type the README's commands for a client, with another job. What they print goes to ``console`` in ``home``.

        Args:
            forgotten: lines with this text are not typed.
        """
        edits = {
            "scp HEAD:": f"cp {self.head_home}/",
            "ssh -f -N -L 8265:127.0.0.1:8265 HEAD": "",
            "http://127.0.0.1:8265": self.dashboard_url,
        }
        script, separator, _ = commands("Where you submit from", edits).partition(" -- ")
        assert separator
        typed = "\n".join(line for line in script.splitlines() if forgotten is None or forgotten not in line)
        command = ["bash", "-c", f"{typed} -- {' '.join(entrypoint)}"]
        env = environment(home)
        with (home / "console").open("wb") as console:
            return subprocess.Popen(
                command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )

    def get(self, path: str) -> str:
        token = (self.head_home / ".ray" / "auth_token").read_text()
        return local_head._get(self.dashboard_url + path, {"Authorization": f"Bearer {token}"}).decode()

    def gauges(self) -> dict[str, tuple[str, str, float]]:
        """Run, stage and value of each of our gauges that any node exports now. Their pages need no token."""
        found: dict[str, tuple[str, str, float]] = {}
        for target in json.loads(self.get("/api/prometheus/sd"))[0]["targets"]:
            try:
                page = local_head._get(f"http://{target}/metrics", {}).decode()
            except ClusterError:  # of a process that has ended, or has not started: the caller asks again
                continue
            found |= {name: (run, stage, float(value)) for name, run, stage, value in GAUGE.findall(page)}
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    gcs, dashboard, client, head_agent, other_agent = local_head._free_ports(5)
    limits = "--object-store-memory=100000000"
    with TemporaryDirectory(prefix="gradus-", dir="/tmp", ignore_cleanup_errors=True) as short:  # for sockets
        head, other = Path(short) / "head", Path(short) / "other"
        ports = f"--port={gcs} --dashboard-port={dashboard} --ray-client-server-port={client}"
        own = f"--num-cpus=1 {limits} --dashboard-agent-listen-port={head_agent} --temp-dir={head / 'ray'}"
        start = commands("On the head node", {"ray start --head": f"ray start --head {ports} {own}"})
        own = f"--num-cpus=0 {limits} --dashboard-agent-listen-port={other_agent} --temp-dir={other / 'ray'}"
        address = {"--address=HEAD:6379": f"--address=127.0.0.1:{gcs} {own}"}
        join = commands("On every other node", {"scp HEAD:": f"cp {head}/", **address})
        with node(start, head), node(join, other):
            yield Cluster(head, f"http://127.0.0.1:{dashboard}")


def test_both_nodes_are_in_the_cluster(cluster: Cluster):
    nodes = json.loads(cluster.get("/nodes?view=summary"))["data"]["summary"]
    assert [item["raylet"]["state"] for item in nodes] == ["ALIVE", "ALIVE"]


@pytest.mark.parametrize(
    ("forgotten", "message"),
    [
        ("RAY_AUTH_MODE", "Missing authentication token"),
        ("auth_token", "couldn't find an authentication token"),
    ],
)
def test_a_client_without_mode_or_token_is_refused(cluster: Cluster, tmp_path: Path, forgotten: str, message: str):
    with cluster.submit(tmp_path, "true", forgotten=forgotten) as client:
        assert client.wait(timeout=60) == 1
    assert message in (tmp_path / "console").read_text()


def test_a_submitted_job_shows_its_waits_on_the_console_and_its_metrics_as_gauges(cluster: Cluster, tmp_path: Path):
    recipe = sft_recipe(save_tiny_model(tmp_path / "model"), tmp_path, NUM_STEPS)
    job = ["python", "-m", "tests.support.notifying_sft", "--config", str(recipe), f"output.root={tmp_path}"]
    gauges: dict[str, tuple[str, str, float]] = {}
    deadline = time.monotonic() + 300
    with cluster.submit(tmp_path, *job) as client:
        while client.poll() is None:
            assert time.monotonic() < deadline
            gauges |= cluster.gauges()
            time.sleep(0.5)
    console = (tmp_path / "console").read_text()
    assert client.returncode == 0, console
    assert "\nlearner_0: waiting 60 s for completions (limit 1800 s)\n" in console
    run = only_run(tmp_path)
    rows = read_metrics(run)
    last = rows[0] | rows[-1]  # a gauge keeps what only a stage's first row has: start_s
    assert {(name, stage) for name, stage, _ in gauges.values()} == {(run.name, "warmup")}
    shown = {name: value for name, (_, _, value) in gauges.items()}
    numbers = {key.replace("/", "_"): value for key, value in last.items() if not isinstance(value, str)}
    assert shown == pytest.approx(numbers)
    assert {"step", "loss", "token_accuracy", "grad_norm", "learner_tokens_per_s", "step_s"} <= set(shown)
