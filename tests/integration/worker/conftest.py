"""What the tests of the supervisor share: one with a store and a job, and the stages that it runs."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from tests.integration.cli.conftest import orch, orch_in
from tests.support.waiting import until
from worker import identity, protocol
from worker.launcher import Launcher
from worker.supervisor import Place, Supervisor

__all__ = ["orch", "orch_in"]

ME = identity.mine("test")


class Bench:
    """A supervisor, its store, and a job to run."""

    def __init__(
        self, settings: config.Settings, store: sql.SqlStore, fork_server: Path, *, spec: specs.JobSpec | None = None
    ) -> None:
        self.settings = settings
        self.store = store
        self.draining = threading.Event()
        self.supervisor = Supervisor(
            store=store,
            settings=settings,
            launcher=Launcher(fork_server),
            place=Place(threads=1, artifact_dir=settings.artifact_dir, data_dir=settings.data_dir, node=os.getpid()),
            draining=self.draining,
            clock=clocks.SystemClock(),
        )
        self.job = store.submit(jobs.NewJob(spec=spec or specs.JobSpec(), user="tester"))[0]

    def claim(self) -> jobs.Claim:
        """Claim the job for a download."""
        claim = self.store.claim(worker=ME, device="CPU", stages=[states.Stage.DOWNLOAD], artifact_root="root")
        assert claim is not None
        return claim

    def run(self) -> jobs.Job | None:
        """Claim the job and run its stage to the end."""
        return self.supervisor.run(self.claim())

    def run_beside(self, act: Callable[[], None]) -> jobs.Job | None:
        """Run the stage, and `act` once its process has said that it works."""

        def when_it_works() -> None:
            until(lambda: self.store.get(self.job.id).progress.done)
            act()

        beside = threading.Thread(target=when_it_works)
        beside.start()
        try:
            return self.run()
        finally:
            beside.join()

    def cancel(self) -> None:
        self.store.cancel(self.job.id, actor="tester")

    def pause(self) -> None:
        self.store.pause(self.job.id, actor="tester")

    def drain(self) -> None:
        self.draining.set()

    def take_back(self) -> None:
        """Take the job back, as a reconciler does whose worker is silent."""
        until(lambda: self.store.take_back(*self.store.leases(), actor="tester", detail="it was silent"))

    @property
    def log(self) -> str:
        """The job's log."""
        return "".join(chunk.text for chunk in self.store.logs(self.job.id))

    @property
    def attempt(self) -> jobs.Attempt:
        """The last attempt."""
        return self.store.attempts(self.job.id)[-1]


@pytest.fixture
def bench(settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path) -> Bench:
    return Bench(settings, store, cold_fork_server)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def choose(name: str) -> None:
        monkeypatch.setitem(protocol.ENTRY_POINTS, states.Stage.DOWNLOAD, f"tests.support.stages:{name}")

    return choose
