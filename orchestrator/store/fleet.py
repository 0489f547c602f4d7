"""The store's side for nodes and reconcilers: workers and leases."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import clock, jobs, states
from orchestrator.store import (
    attemptmodels,
    engine,
    hostmodels,
    jobmodels,
    rows,
    supervisors,
    waiting,
    workerbase,
    yields,
)

#: How long workers that ended are still shown.
SHOWN_AFTER_END = timedelta(days=1)

_ENDED = (states.WorkerState.STOPPED, states.WorkerState.LOST)
_jobs = jobmodels.jobs.c
_workers = hostmodels.workers.c


class Fleet(workerbase.Fleet):
    """What nodes and reconcilers do, in SQL."""

    database: engine.Database
    clock: clock.Clock
    now: Callable[[Connection], datetime]  #: by the clock that all users of the database share

    @engine.writes
    def register(self, connection: Connection, worker: jobs.Worker) -> None:
        """Store a worker as active."""
        values = {
            **asdict(worker.identity),
            "state": states.WorkerState.ACTIVE,
            "devices": list(worker.devices),
            "versions": worker.versions,
            "artifact_root": worker.artifact_root,
            "started_at": worker.started_at,
            "beat": worker.beat,
            "beat_at": self.now(connection),
            "ended_at": None,
            "wish": states.WorkerWish.RUN,
            "limits": {"users": dict(worker.limits.users), "tags": dict(worker.limits.tags)},
            "slots": [asdict(slot) for slot in worker.slots],
            "labels": list(worker.labels),
        }
        storing = engine.insert(connection, hostmodels.workers).values(values)
        connection.execute(storing.on_conflict_do_update(index_elements=["id"], set_=values))

    @engine.writes
    def beat_worker(self, connection: Connection, worker_id: str, state: states.WorkerState) -> states.WorkerWish:
        """Advance a worker's beat counter, store its state and return what is wished of it; raises NotFound."""
        now = self.now(connection)
        values = {"state": state, "beat_at": now, "ended_at": now if state in _ENDED else None}
        beating = update(hostmodels.workers).where(_workers.id == worker_id).values(beat=_workers.beat + 1, **values)
        beaten = connection.execute(beating.returning(hostmodels.workers)).first()
        if beaten is None:
            raise _missing(worker_id)
        return states.WorkerWish(beaten.wish)

    @engine.writes
    def wish_worker(self, connection: Connection, worker_id: str, wish: states.WorkerWish) -> None:
        """Wish something of a worker that lives; raises NotFound, or IllegalMove for one that has ended."""
        wishing = update(hostmodels.workers).where(_workers.id == worker_id, _workers.state.not_in(_ENDED))
        if connection.execute(wishing.values(wish=wish)).rowcount == 0:
            state = self._state_of(connection, worker_id)
            raise errors.IllegalMove(f"Worker {worker_id} is {state}: it takes no jobs any more.")

    @engine.writes
    def forget_worker(self, connection: Connection, worker_id: str) -> None:
        """Remove the row of a worker that has ended; raises NotFound, or IllegalMove for one that lives."""
        ended = (_workers.id == worker_id, _workers.state.in_(_ENDED))
        if connection.execute(hostmodels.workers.delete().where(*ended)).rowcount == 0:
            state = self._state_of(connection, worker_id)
            raise errors.IllegalMove(
                f"Worker {worker_id} is {state}: only one that has stopped or was lost can be forgotten.",
                hint=f"`orch worker drain {worker_id}` lets it take no more jobs.",
            )

    def _state_of(self, connection: Connection, worker_id: str) -> states.WorkerState:
        state = connection.execute(select(_workers.state).where(_workers.id == worker_id)).scalar_one_or_none()
        if state is None:
            raise _missing(worker_id)
        return states.WorkerState(state)

    @engine.reads
    def workers(self, connection: Connection) -> list[jobs.Worker]:
        """Return the workers that live, and those that ended within the last day."""
        now = self.now(connection)
        shown = or_(_workers.ended_at.is_(None), _workers.ended_at > now - SHOWN_AFTER_END)
        held = defaultdict(list)
        running = select(_jobs.id, _jobs.worker).where(_jobs.state == states.JobState.RUNNING).order_by(_jobs.seq)
        for job in connection.execute(running):
            held[job.worker].append(job.id)
        found = connection.execute(select(hostmodels.workers).where(shown).order_by(_workers.started_at, _workers.id))
        return [rows.worker(row, tuple(held[row.id]), now) for row in found]

    @engine.reads
    def time(self, connection: Connection) -> datetime:
        """Return the time by the clock that all users of the database share."""
        return self.now(connection)

    @engine.reads
    def ended_attempts(self, connection: Connection, worker_id: str, *, limit: int = 100) -> list[jobs.Attempt]:
        """Return the last attempts of a worker that have ended, newest first."""
        ended = attemptmodels.attempts.c.ended_at
        mine = select(attemptmodels.attempts).where(attemptmodels.attempts.c.worker == worker_id, ended.is_not(None))
        return [rows.attempt(row) for row in connection.execute(mine.order_by(ended.desc()).limit(limit))]

    @engine.writes
    def lose_worker(self, connection: Connection, worker_id: str, *, beat: int) -> bool:
        """Mark a worker lost if its beat counter is still `beat`."""
        silent = (_workers.id == worker_id, _workers.beat == beat, _workers.state.not_in(_ENDED))
        lost = {"state": states.WorkerState.LOST, "ended_at": self.now(connection)}
        return connection.execute(update(hostmodels.workers).where(*silent).values(lost)).rowcount == 1

    @engine.reads
    def leases(self, connection: Connection) -> list[jobs.Lease]:
        """Return the leases of all running jobs."""
        lease = select(_jobs.id, _jobs.attempt, _jobs.beat, _jobs.worker).order_by(_jobs.seq)
        running = connection.execute(lease.where(_jobs.state == states.JobState.RUNNING))
        return [jobs.Lease(job_id=row.id, attempt=row.attempt, beat=row.beat, worker=row.worker) for row in running]

    @engine.writes_an_end
    def take_back(self, connection: Connection, lease: jobs.Lease, *, actor: str, detail: str) -> jobs.Job | None:
        """End an attempt as lost, if (attempt, beat) still stand as in `lease`."""
        standing = (
            _jobs.id == lease.job_id,
            _jobs.attempt == lease.attempt,
            _jobs.beat == lease.beat,
            _jobs.state == states.JobState.RUNNING,
        )
        locking = update(jobmodels.jobs).where(*standing).values(beat=lease.beat).returning(jobmodels.jobs)
        job = connection.execute(locking).first()
        if job is None:
            return None
        lost = jobs.Outcome(kind="failed", reason=states.Reason.LOST, error=detail)
        return rows.job(supervisors.end(connection, job, lost, how="lost", actor=actor, clock=self.clock))

    def unblock(self, *, actor: str) -> int:
        """Look at every blocked job whose time has come, a batch at a time; return how many there were."""
        total = 0
        while count := self._unblock(actor):
            total += count
        return total

    @engine.writes_an_end
    def _unblock(self, connection: Connection, actor: str) -> int:
        now = self.clock.now()
        return waiting.unblock(connection, actor=actor, now=now) if waiting.is_any_due(connection, now) else 0

    def make_room(self, *, actor: str, stay: timedelta) -> int:
        """Ask preemptible trainings to yield to urgent jobs, or no longer; return of how many something was wished."""
        return self._make_room(actor, stay) if self._is_room_wanted(stay) else 0

    @engine.reads
    def _is_room_wanted(self, connection: Connection, stay: timedelta) -> bool:
        return bool(yields.asked(connection, stay=stay, now=self.clock.now()))

    @engine.writes
    def _make_room(self, connection: Connection, actor: str, stay: timedelta) -> int:
        return yields.ask(connection, stay=stay, actor=actor, now=self.clock.now())

    def release_host(self, *, actor: str, host: str, alive: Callable[[jobs.WorkerIdentity], bool]) -> list[jobs.Job]:
        """Take back at once what dead workers of this host hold, and mark these lost."""
        beats = {identity: beat for identity, beat in self._of_host(host) if not alive(identity)}
        dead = {identity.id for identity in beats}
        leases = [lease for lease in self.leases() if lease.worker in dead]
        detail = f"its worker's process on {host} has ended"
        taken = [self.take_back(lease, actor=actor, detail=detail) for lease in leases]
        for identity, beat in beats.items():
            self.lose_worker(identity.id, beat=beat)
        return [job for job in taken if job is not None]

    @engine.reads
    def _of_host(self, connection: Connection, host: str) -> list[tuple[jobs.WorkerIdentity, int]]:
        """Return the workers of a host that live or hold a job, with their beat counters."""
        holding = select(_jobs.worker).where(_jobs.state == states.JobState.RUNNING)
        concerned = or_(_workers.ended_at.is_(None), _workers.id.in_(holding))
        found = connection.execute(select(hostmodels.workers).where(_workers.host == host, concerned))
        return [(rows.identity(row), row.beat) for row in found]


def _missing(worker_id: str) -> errors.NotFound:
    return errors.NotFound(f"There is no worker {worker_id!r}.", hint="`orch worker list` shows them.")
