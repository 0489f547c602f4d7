"""The peer's queue: a DVC project made on the fly, and its experiments queue."""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from benchmarks import measure, place


@dataclass(frozen=True)
class Project:
    """A project with one stage; every experiment of it changes the parameter `n`."""

    folder: Path
    env: dict[str, str]
    numbers: "count[int]"

    @property
    def queue_command(self) -> list[str]:
        """The command that queues one more experiment."""
        return ["dvc", "exp", "run", "--queue", "--set-param", f"n={next(self.numbers)}"]

    @property
    def status_command(self) -> list[str]:
        """The command that lists the queue."""
        return ["dvc", "queue", "status"]

    def run(self, *command: str) -> None:
        """Run a command in the project; raises CalledProcessError where it fails."""
        subprocess.run(command, cwd=self.folder, env=self.env, check=True, capture_output=True)

    def drain(self, jobs: int) -> float:
        """Queue `jobs` experiments, run them with one worker, return the seconds a job.

        They are counted from the end of the first to the end of the last: the start of the worker is left out.
        """
        for _ in range(jobs):
            self.run(*self.queue_command)
        marks = self.folder.parent / f"{self.folder.name}.marks"
        marks.unlink(missing_ok=True)
        self.run("dvc", "queue", "start", "--jobs", "1")
        measure.wait_for(lambda: marks.exists() and len(marks.read_text().split()) == jobs, seconds=60 * jobs)
        ends = [float(mark) for mark in marks.read_text().split()]
        self.stop()
        return (ends[-1] - ends[0]) / (jobs - 1)

    def stop(self) -> None:
        """End the queue's worker."""
        self.run("dvc", "queue", "stop", "--kill")
        measure.wait_for(lambda: not self._processes(), seconds=60, every=0.1)

    def _processes(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found


@contextmanager
def project(folder: Path, *stage: str | Path) -> Iterator[Project]:
    """Make a project whose stage runs the command `stage`."""
    folder.mkdir(parents=True)
    bin_folder = place.peer("dvc")
    env = place.clean_environment()
    env |= {
        "PATH": f"{bin_folder}:{env['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "bench",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "bench@localhost",
    }
    made = Project(folder, env, count(1))
    marks = folder.parent / f"{folder.name}.marks"
    command = f"{shlex.join(map(str, stage))} && date +%s.%N >> {shlex.quote(str(marks))}"
    (folder / "dvc.yaml").write_text(
        f"stages:\n  train:\n    cmd: {command}\n    params: [n]\n    outs: []\n", encoding="utf-8"
    )
    (folder / "params.yaml").write_text("n: 0\n", encoding="utf-8")
    for line in ("git init --quiet", "dvc init --quiet", "git add .", "git commit --quiet --message start"):
        made.run(*line.split())
    try:
        yield made
    finally:
        made.stop()
