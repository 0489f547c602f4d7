"""A whole installation for a test: a home of its own, real nodes, the real command line, test timings."""

import functools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.queue import embedded
from orchestrator.store import base, sql
from tests.support.waiting import patiently, until

ROOT = Path(__file__).parents[2]

#: Lease and beats as fast as a busy machine of two cores keeps up with, and no process more than needed.
TEST_SETTINGS: dict[str, Any] = {
    "heartbeat": 0.3,
    "lease": 3,
    "sweep": 0.3,
    "stay": 0.5,
    "drain": 20,
    "cancel_grace": 2,
    "download_slots": 1,
}


class Installation:
    """One home; `close` ends whatever still runs in it.

    A step of its trainings takes `step_seconds` at least: one that lasts until something has happened lasts as long on
    a fast machine, and leaves the cores to others.
    """

    def __init__(self, home: Path, *, step_seconds: float = 0, **settings: Any) -> None:
        self.settings = config.Settings(
            **{"home": home, "lock_dir": home / "locks", "threads": 1, **TEST_SETTINGS, **settings}
        )
        self.environment = config.child_environment(self.settings)
        self._slowness = home.with_name(f"{home.name}-failpoints") / "train.loss"
        if step_seconds:
            self._slowness.parent.mkdir(parents=True)
            self.environment["ORCH_TEST_FAILPOINTS"] = str(self._slowness.parent)
            self.slow_down(step_seconds)
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._store: base.Store | None = None

    @property
    def store(self) -> base.Store:
        """The home's store."""
        if self._store is None:
            self._store = sql.open_store(self.settings)
        return self._store

    def orch(self, *words: str, code: int = 0, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run the command line to its end, in a pipe, and check its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"orch {' '.join(words)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start_node(self, *flags: str, log: str | None = None) -> "subprocess.Popen[bytes]":
        """Start a node; its log is `home/node-N.log`."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        path = self.settings.home / (log or f"node-{len(self.nodes)}.log")
        with path.open("wb") as output:
            node = subprocess.Popen(
                [sys.executable, "-m", "worker", *flags],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.nodes.append(node)
        return node

    def submit(self, spec: specs.JobSpec) -> jobs.Job:
        """Store a job; the reconciler rings for it."""
        return self.store.submit(jobs.NewJob(spec=spec, user="tester"))[0]

    def wait(self, job_id: str, state: states.JobState | None = None, *, seconds: float = 150) -> jobs.Job:
        """Return the job once it is final (in `state`), failing with what is known where it ends otherwise."""

        def final() -> jobs.Job | None:
            job = patiently(self.store.get, job_id)
            return job if job.final else None

        job = until(final, seconds=seconds)
        assert state in {None, job.state}, f"{job.state}: {job.reason} {job.error}\n{self.log(job_id)}"
        return job

    def log(self, job_id: str) -> str:
        """Return the job's log."""
        return "".join(chunk.text for chunk in self.store.logs(job_id))

    def hurry(self) -> None:
        """Let the steps of trainings take as long as they take from now on."""
        self._slowness.unlink(missing_ok=True)

    def slow_down(self, seconds: float) -> None:
        """Let each step take so long at least; only where it was so from the beginning."""
        self._slowness.write_text(f"each sleep {seconds}", encoding="ascii")

    def close(self) -> None:
        """End every node and the broker, the hard way where they do not go."""
        for node in self.nodes:
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
        for node in self.nodes:
            try:
                node.wait(timeout=90)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        embedded.stop(self.settings)
        if self._store is not None:
            self._store.close()


@functools.cache
def _schema() -> bytes:
    """Return an embedded database with our schema: whoever finds it imports no Alembic, and makes none."""
    with tempfile.TemporaryDirectory() as home:
        sql.open_store(config.Settings(home=Path(home))).close()
        return (Path(home) / "orch.db").read_bytes()


@contextmanager
def installation(
    home: Path, *, step_seconds: float = 0, migrated: bool = True, **settings: Any
) -> Iterator[Installation]:
    """Yield an installation, and check at the end that nothing of it is left running.

    Unless it is `migrated`, there is nothing at all before its first process.
    """
    installed = Installation(home, step_seconds=step_seconds, **settings)
    if migrated and installed.settings.embedded_database:
        sql.make_home(installed.settings)
        (home / "orch.db").write_bytes(_schema())
    try:
        yield installed
    finally:
        installed.close()
        deadline = time.monotonic() + 60
        while (left := processes_of(home)) and time.monotonic() < deadline:
            time.sleep(0.05)
        still = []
        for process in left:
            with suppress(psutil.NoSuchProcess):
                still.append(process.cmdline())
                process.kill()
    assert not still, f"left running: {still}"


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the living processes whose ORCH_HOME is `home`, this one not among them."""
    found = []
    for pid in psutil.pids():
        try:
            # Anew each time: one that `process_iter` has kept of the pid's last owner takes no signal.
            process = psutil.Process(pid)
            if process.environ().get("ORCH_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.pid != psutil.Process().pid]


def named(home: Path, module: str) -> list[psutil.Process]:
    """Return the processes of the home that run the Python module `module`."""
    found = []
    for process in processes_of(home):
        try:
            if module in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def training_process(installed: Installation, job: jobs.Job) -> psutil.Process | None:
    """Return the process that works on the job's present attempt, None where it is gone or not there yet."""
    pid_file = installed.settings.artifact_dir / job.id / f"attempt-{job.attempt:04d}" / "pid"
    try:
        return psutil.Process(int(pid_file.read_text(encoding="ascii")))
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, if nobody has asked yet how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True
