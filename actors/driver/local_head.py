"""A private Ray cluster of one node on this machine, for one job or a test.

``LocalHead`` starts ``ray start --head --block`` below a small keeper process (this file, run as a
script). The keeper holds the read end of a pipe and adopts orphans (a "child subreaper" on Linux), so
everything that the cluster ever starts stays below it. When the pipe ends, because ``stop`` closed it or
because our process died, even by SIGKILL, the keeper stops exactly that tree and removes the temporary
directory. Nothing is ever found by name: other Rays on the machine are not touched.
"""

import ctypes
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import psutil

from pipeline.errors import ClusterError

START_TIMEOUT_S = 120.0
TERMINATE_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 120.0
# A caller's own cluster must not leak into ours.
_FOREIGN_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS", "RAY_TMPDIR")


class LocalHead:
    """Context manager: jobs can be submitted within the block; nothing of it is left afterwards.

    Ray's own ports listen on all interfaces even on a loopback node, so every request needs a token.

    Raises:
        ClusterError: the head did not answer within ``START_TIMEOUT_S``.
    """

    def __init__(self, num_cpus: float | None = None, object_store_memory_bytes: int | None = None) -> None:
        # /tmp, not $TMPDIR: the paths of Ray's sockets below it must stay under 107 characters.
        self.temp_dir = Path(tempfile.mkdtemp(prefix="gradus-", dir="/tmp"))
        self.token_path = self.temp_dir / "token"
        self.token_path.touch(mode=0o600)
        self.token_path.write_text(secrets.token_hex(32))
        gcs, dashboard, agent, client = _free_ports(4)
        self.address = f"127.0.0.1:{gcs}"
        """For ``ray.init``."""
        self.dashboard_url = f"http://127.0.0.1:{dashboard}"
        """For ``ray job submit --address`` and a browser."""
        self._agent_url = f"http://127.0.0.1:{agent}"
        self.env = _environment(self.token_path)
        """The complete environment, for ``subprocess``, of a process that talks to this cluster."""
        self._command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={self.temp_dir}"),
            *(f"--port={gcs}", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        ]
        if num_cpus is not None:
            self._command.append(f"--num-cpus={num_cpus}")
        if object_store_memory_bytes is not None:
            self._command.append(f"--object-store-memory={object_store_memory_bytes}")
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "LocalHead":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def request(self, path: str) -> bytes:
        """Answer of the dashboard to a GET request with our token.

        Raises:
            ClusterError: no answer, or an error.
        """
        header = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        return _get(self.dashboard_url + path, header)

    def stop(self) -> None:
        """Stop everything that this head started."""
        if self._keeper:
            # Closing its input is not enough: a fork of ours may hold the pipe open.
            self._keeper.communicate(b"stop", timeout=STOP_TIMEOUT_S)
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _start(self) -> None:
        log_path = self.temp_dir / "head.log"
        with log_path.open("wb") as log:
            # A session of its own, so that the terminal's Ctrl-C reaches us alone.
            self._keeper = subprocess.Popen(
                [sys.executable, __file__, str(self.temp_dir), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                log_tail = log_path.read_text(errors="replace")[-2000:] if log_path.exists() else ""
                raise ClusterError(f"a local Ray head did not start within {START_TIMEOUT_S:g} s:\n{log_tail}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        """True once the dashboard and the agent that starts jobs both answer."""
        try:
            self.request("/api/version")
            _get(self._agent_url + "/api/local_raylet_healthz", {})
        except ClusterError:
            return False
        return True


def _get(url: str, headers: dict[str, str]) -> bytes:
    # A proxy from the environment could not reach our loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            body: bytes = answer.read()
            return body
    except OSError as error:  # URLError and timeouts are OSErrors
        raise ClusterError(f"the local Ray head must answer {url}, got {error!r}. Run again.") from error


def _free_ports(count: int) -> list[int]:
    """All are held open at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _environment(token_path: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN_VARIABLES}
    # `python` in a job's command is ours, and so are tools such as ninja.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path), "RAY_USAGE_STATS_ENABLED": "0"}
    return env


def _keep(temp_dir: str, command: list[str]) -> None:
    """The keeper: runs the head until it or our stdin ends, then stops all our descendants."""
    _adopt_orphans()
    head = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while not select.select([sys.stdin], [], [], 0.5)[0] and head.pid not in _reap():
            pass
    finally:
        _stop_children()
        shutil.rmtree(temp_dir, ignore_errors=True)


def _adopt_orphans() -> None:
    """Make descendants whose parent died our children. Linux only; elsewhere they are missed."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _reap() -> set[int]:
    reaped: set[int] = set()
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            reaped.add(pid)
    except ChildProcessError:
        pass
    return reaped


def _stop_children() -> None:
    """Ask all descendants to end, then kill them, and look again: a dying process may start another."""
    targets = psutil.Process().children(recursive=True)
    stop_signal = signal.SIGTERM
    while targets:
        for process in targets:
            try:
                process.send_signal(stop_signal)
            except psutil.NoSuchProcess:
                pass
        _, alive = psutil.wait_procs(targets, timeout=TERMINATE_TIMEOUT_S)
        _reap()
        targets = list({*alive, *psutil.Process().children(recursive=True)})
        stop_signal = signal.SIGKILL


if __name__ == "__main__":
    _keep(sys.argv[1], sys.argv[2:])
