"""A slot: one device, or one place for downloads, and the loop that claims for it."""

import threading
import time
from collections.abc import Callable, Sequence

from orchestrator import errors, log
from orchestrator.core import jobs, limits, nearness, states
from orchestrator.store import workerbase
from worker.permits import Permits
from worker.pool import UNPOOLED, Pool, Unpooled
from worker.supervisor import Supervisor

_log = log.get("slot")

_POLL_SECONDS = 0.05
#: Seconds between two looks for devices that come free: at locks alone, not at the database.
_LOOK_SECONDS = 0.2


class Slot:
    """Claims and runs jobs, one at a time, until nothing is eligible."""

    def __init__(
        self,
        *,
        store: workerbase.Supervisors,
        supervisor: Supervisor,
        worker: jobs.WorkerIdentity,
        device: str,
        artifact_root: str,
        stages: Sequence[states.Stage],
        limits: limits.Limits = limits.NONE,
        pool: Pool | Unpooled = UNPOOLED,
        permits: Permits,
        ring: Callable[[states.Stage], None],
        ready: Callable[[], bool],
        draining: threading.Event,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._worker = worker
        self._device = device
        self._artifact_root = artifact_root
        self._stages = tuple(stages)
        self._limits = limits
        self._pool = pool
        self._permits = permits
        self._ring = ring
        self._ready = ready
        self._draining = draining
        self._busy = threading.Lock()

    def serve(self) -> None:
        """Run what is eligible; returns when nothing is, when the worker drains, or when the database is away."""
        with self._busy:
            try:
                self._wait_until_ready()
                while not self._draining.is_set() and self._serve_one():
                    pass
            except errors.DatabaseUnavailable as error:
                _log.warning("database away", why=error.why)
            except Exception:  # noqa: BLE001 - the edge: a job's trouble must not end the slot's thread
                _log.exception("a job could not be served")

    def hear(self) -> None:
        """Answer a doorbell: serve; where another host has the data of what is next, ring on, for it to serve first."""
        with self._busy:
            stage = self._for_another()
            if stage is not None:
                self._ring(stage)  # this slot hears nothing meanwhile
                self._draining.wait(nearness.HEAD_START)
        self.serve()

    def _for_another(self) -> states.Stage | None:
        """Return the stage of a job that another host should begin, where there is one."""
        try:
            with self._pool.in_use():
                return self._store.for_another(
                    worker=self._worker,
                    stages=self._stages,
                    artifact_root=self._artifact_root,
                    limits=self._limits,
                    pool=self._pool,
                )
        except errors.DatabaseUnavailable as error:
            _log.warning("database away", why=error.why)
        except Exception:  # noqa: BLE001 - the edge: what is only better must not keep a slot from serving
            _log.exception("nobody knows which host has the data")
        return None

    def look_every(self, seconds: float) -> None:
        """Serve at once, and again every `seconds`, until the worker drains: no doorbell is needed for a job to run.

        Sooner where devices come free that were not when a job that needs them was next.
        """
        while not self._draining.is_set():
            self.serve()
            until = time.monotonic() + seconds
            while time.monotonic() < until and not self._draining.wait(min(_LOOK_SECONDS, seconds)):
                if self._pool.has_come_free():
                    break

    def wait_until_free(self) -> None:
        """Return when no job is in this slot."""
        with self._busy:
            return

    def _wait_until_ready(self) -> None:
        """Wait until work can be started: what is claimed before would wait in vain where that never comes."""
        while not self._ready() and not self._draining.wait(_POLL_SECONDS):
            pass

    def _serve_one(self) -> bool:
        """Claim one job and run its stage to the end; return whether there was one."""
        with self._pool.in_use():
            claim = self._claim()
            if claim is None:
                return False
            _log.info("claimed", job=claim.id, attempt=claim.attempt, stage=claim.job.stage, devices=self._pool.ids)
            job = self._supervisor.run(claim)
        self._settle(claim, job)
        return True

    def _claim(self) -> jobs.Claim | None:
        # What is already on its way needs no permit: only a training that begins does.
        claim = self._ask([stage for stage in self._stages if stage is not states.Stage.TRAIN])
        if claim is not None or states.Stage.TRAIN not in self._stages:
            return claim
        return self._permits.take(lambda: self._ask([states.Stage.TRAIN]))

    def _ask(self, stages: Sequence[states.Stage]) -> jobs.Claim | None:
        if not stages:
            return None
        return self._store.claim(
            worker=self._worker,
            device=self._device,
            stages=stages,
            artifact_root=self._artifact_root,
            limits=self._limits,
            pool=self._pool,
        )

    def _settle(self, claim: jobs.Claim, job: jobs.Job | None) -> None:
        """Count a job that came to an end, and ring for one that goes on."""
        if job is None:
            return
        if job.final:
            _log.info("ended", job=job.id, state=job.state, reason=job.reason)
            if claim.job.stage is states.Stage.DOWNLOAD:
                self._permits.end()
        elif job.state is states.JobState.QUEUED and not job.blocked:
            self._ring(job.stage)
