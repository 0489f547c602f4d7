"""The other peer's queue: a Ray cluster of one node, made on the fly, and its job submission."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import measure, place

#: Seconds until a cluster takes jobs, and until it has gone.
START_SECONDS, STOP_SECONDS = 300, 30


@dataclass(frozen=True)
class Cluster:
    """A cluster that takes jobs at `address`."""

    program: Path
    address: str
    folder: Path
    env: dict[str, str]

    def submit(self, *entry: str) -> float:
        """Submit a job and return the seconds from exec to exit."""
        return measure.wall(self._submission(*entry), env=self.env, cwd=self.folder)

    def _submission(self, *entry: str) -> list[str]:
        return [str(self.program), "job", "submit", "--no-wait", "--address", self.address, "--", *entry]

    def takes_jobs(self) -> bool:
        """Whether a job can be submitted: its agent begins later than all that the cluster says of itself."""
        try:
            self.to_entry()
        except subprocess.CalledProcessError:
            return False
        return True

    def to_entry(self) -> float:
        """Return the seconds from the exec of a submission to the first command of its job.

        Raises CalledProcessError where the job is not taken.
        """
        mark = self.folder / "mark"
        mark.unlink(missing_ok=True)
        command, start = self._submission("touch", str(mark)), time.monotonic()
        nothing = subprocess.DEVNULL
        with subprocess.Popen(
            command, env=self.env, cwd=self.folder, stdin=nothing, stdout=nothing, stderr=nothing
        ) as client:
            measure.wait_for(lambda: mark.exists() or client.poll() not in {None, 0}, seconds=START_SECONDS)
            took = time.monotonic() - start
        if client.returncode != 0:
            raise subprocess.CalledProcessError(client.returncode, command)
        return took


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster with one CPU, and a job in it; end all of its processes."""
    program = place.peer("ray", "ray[default]") / "ray"
    with tempfile.TemporaryDirectory(prefix="ray-") as scratch:
        folder, port = Path(scratch), measure.free_port()
        # Without the second one it takes this host's address in place of loopback, and listens to the network.
        env = place.clean_environment(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
        env["PATH"] = f"{program.parent}{os.pathsep}{env['PATH']}"
        ports = ("--port=0", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={measure.free_port()}")
        at = ("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1")
        words = ("start", "--head", "--block", "--num-cpus=1", *at, *ports)
        log = folder / "log"
        with log.open("wb") as output:
            head = subprocess.Popen(
                [program, *words, f"--temp-dir={folder / 'ray'}"], env=env, cwd=folder, stdout=output, stderr=output
            )
        try:
            made = Cluster(program, f"http://127.0.0.1:{port}", folder, env)
            measure.wait_for(lambda: b"Ray runtime started" in log.read_bytes(), seconds=START_SECONDS, every=0.2)
            _listens_to_this_host_alone(head)
            measure.wait_for(made.takes_jobs, seconds=START_SECONDS, every=1)
            yield made
        finally:
            _end(head)


def _listens_to_this_host_alone(head: "subprocess.Popen[bytes]") -> None:
    """Raise RuntimeError where another host could reach the cluster, which asks nobody who they are."""
    leader = psutil.Process(head.pid)
    for process in (leader, *leader.children(recursive=True)):
        for one in process.net_connections():
            if one.status == psutil.CONN_LISTEN and one.laddr.ip not in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}:
                raise RuntimeError(f"Ray's {process.name()} listens at {one.laddr.ip}:{one.laddr.port}")


def _end(head: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    head.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        process.kill()
    head.wait(STOP_SECONDS)
