"""The reconciler: it takes back what is held by nobody, notices silent workers, lets go on what was blocked, and rings.

Every node runs one; conditional updates in the store decide which of them acts. The ringing is a function of its own,
for a thread of its own: a broker that hangs must not keep dead leases from being noticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from orchestrator import log
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, states
from orchestrator.queue import dispatch
from orchestrator.store import base

_log = log.get("reconciler")

#: Doorbells of one stage that are sent in one round: every slot that hears one serves until nothing is left.
MOST_DOORBELLS = 64


class Stillness:
    """Finds what has stood still for some time: a pure rule over (key, beat) pairs seen at times of one clock.

    Nobody's clock is compared with another's. A gap between two looks (the database was away, or this process was
    stopped) starts every wait anew: what beats could not be seen then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[tuple[int, ...], float]] = {}
        self._looked_at: float | None = None

    def dead(self, beats: Mapping[str, tuple[int, ...]], now: float) -> set[str]:
        """Return the keys whose beat has not changed for the time given."""
        if self._looked_at is None or now - self._looked_at > self._seconds / 2:
            self._seen.clear()
        self._looked_at = now
        self._seen = {
            key: self._seen[key] if key in self._seen and self._seen[key][0] == beat else (beat, now)
            for key, beat in beats.items()
        }
        return {key for key, (_, since) in self._seen.items() if now - since >= self._seconds}


@dataclass(kw_only=True)
class Reconciler:
    """One node's reconciler; `sweep` is called every few seconds."""

    store: base.Store
    clock: clocks.Clock
    lease_seconds: float
    actor: str
    stay_seconds: float = 300.0  #: that a preemptible training runs at least

    def __post_init__(self) -> None:
        self._leases = Stillness(self.lease_seconds)
        self._workers = Stillness(self.lease_seconds)

    def sweep(self) -> list[jobs.Job]:
        """Do one round and return the jobs that were taken back; raises DatabaseUnavailable."""
        taken = self._take_back()
        self._lose_workers()
        self.store.unblock(actor=self.actor)
        self.store.make_room(actor=self.actor, stay=timedelta(seconds=self.stay_seconds))
        return taken

    def _take_back(self) -> list[jobs.Job]:
        taken = []
        leases = {lease.job_id: lease for lease in self.store.leases()}
        beats = {job_id: (lease.attempt, lease.beat) for job_id, lease in leases.items()}
        for job_id in self._leases.dead(beats, self.clock.monotonic()):
            detail = f"no beat of its lease for {self.lease_seconds:g} s"
            job = self.store.take_back(leases[job_id], actor=self.actor, detail=detail)
            if job is not None:
                _log.warning("took back", job=job.id, worker=leases[job_id].worker, state=job.state)
                taken.append(job)
        return taken

    def _lose_workers(self) -> None:
        ended = {states.WorkerState.STOPPED, states.WorkerState.LOST}
        beats = {worker.id: (worker.beat,) for worker in self.store.workers() if worker.state not in ended}
        for worker_id in self._workers.dead(beats, self.clock.monotonic()):
            if self.store.lose_worker(worker_id, beat=beats[worker_id][0]):
                _log.warning("lost worker", worker=worker_id)


class Restraint:
    """How many doorbells are worth it: half as many each time that some were heard and as much waits as before.

    Limits may keep whoever hears one from all that waits, or it lacks what that demands: many nodes that rang on
    would have many slots ask the database in vain all the time. Idle slots look by themselves as well.
    """

    def __init__(self) -> None:
        self._last: dict[states.Stage, tuple[int, int]] = {}  #: what waited at the last look, and the most rung then

    def most(self, waiting: Mapping[states.Stage, int], lying: Mapping[states.Stage, int]) -> dict[states.Stage, int]:
        """Return how many doorbells each stage is to have at most."""
        last, self._last = self._last, {}
        for stage, count in waiting.items():
            before, most = last.get(stage, (0, MOST_DOORBELLS))
            if count != before:
                most = MOST_DOORBELLS
            elif lying[stage] < min(count, most):
                most = max(1, most // 2)
            self._last[stage] = count, most
        return {stage: most for stage, (_, most) in self._last.items()}


def top_up(store: base.Store, doorbell: dispatch.Doorbell, restraint: Restraint) -> None:
    """Ring for what waits and is not rung for already; raises DatabaseUnavailable or BrokerUnavailable."""
    eligible = {stage: count for stage, count in store.counts().eligible.items() if count}
    lying = doorbell.waiting(eligible) if eligible else {}
    for stage, most in restraint.most(eligible, lying).items():
        missing = min(eligible[stage], most) - lying[stage]
        if missing > 0:
            doorbell.ring(stage, missing)
