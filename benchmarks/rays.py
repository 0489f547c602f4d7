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
        command = [str(self.program), "job", "submit", "--no-wait", "--address", self.address, "--", *entry]
        return measure.wall(command, env=self.env, cwd=self.folder)

    def takes_jobs(self) -> bool:
        """Whether a job can be submitted: its agent begins later than all that the cluster says of itself."""
        try:
            self.to_entry()
        except subprocess.CalledProcessError:
            return False
        return True

    def to_entry(self) -> float:
        """Return the seconds from the exec of a submission to the first command of its job."""
        mark = self.folder / "mark"
        mark.unlink(missing_ok=True)
        start = time.monotonic()
        self.submit("touch", str(mark))
        measure.wait_for(mark.exists, seconds=START_SECONDS)
        return time.monotonic() - start


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster with one CPU, and a job in it; end all of its processes."""
    program = place.peer("ray", "ray[default]") / "ray"
    with tempfile.TemporaryDirectory(prefix="ray-") as scratch:
        folder, port = Path(scratch), measure.free_port()
        env = place.clean_environment(RAY_USAGE_STATS_ENABLED="0")
        env["PATH"] = f"{program.parent}{os.pathsep}{env['PATH']}"
        ports = ("--port=0", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={measure.free_port()}")
        words = ("start", "--head", "--block", "--num-cpus=1", *ports)
        log = folder / "log"
        with log.open("wb") as output:
            head = subprocess.Popen(
                [program, *words, f"--temp-dir={folder / 'ray'}"], env=env, cwd=folder, stdout=output, stderr=output
            )
        try:
            made = Cluster(program, f"http://127.0.0.1:{port}", folder, env)
            measure.wait_for(lambda: b"Ray runtime started" in log.read_bytes(), seconds=START_SECONDS, every=0.2)
            measure.wait_for(made.takes_jobs, seconds=START_SECONDS, every=1)
            yield made
        finally:
            _end(head)


def _end(head: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    head.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        process.kill()
    head.wait(STOP_SECONDS)
