"""Making room for urgent jobs: `core.yielding`, over the jobs that run and those that a claim would take next."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.engine import Connection

from orchestrator.core import gangs, jobs, resources, states, yielding
from orchestrator.store import claims, models, moves, rows

#: Key of PostgreSQL's advisory lock under which it is decided who yields: "yiel" in ASCII.
_ADVISORY_KEY = 0x7969656C

_jobs = models.jobs.c
_attempts = models.attempts.c
_workers = models.workers.c
_STAY = (states.Wish.RUN, states.Wish.YIELD)


def asked(connection: Connection, *, stay: timedelta, now: datetime) -> list[yielding.Asked]:
    """Return the trainings of which something else is wished from now on."""
    begun = select(models.jobs, _attempts.started_at.label("began_at")).join_from(
        models.jobs, models.attempts, (_attempts.job_id == _jobs.id) & (_attempts.attempt == _jobs.attempt)
    )
    training = (_jobs.state == states.JobState.RUNNING, _jobs.stage == states.Stage.TRAIN, _jobs.wish.in_(_STAY))
    found = [row for row in connection.execute(begun.where(*training).order_by(_jobs.seq)) if _may_yield(row)]
    if not found:  # as nearly always
        return []
    by_id = {row.id: row for row in found}
    look = _Look(connection=connection, now=now)
    trainings = [
        yielding.Training(job=row.id, priority=row.priority, began_at=row.began_at, yields_to=row.yields_to)
        for row in found
    ]
    return list(yielding.asked(trainings, lambda one: look.urgent(by_id[one.job]), stay=stay, now=now))


def ask(connection: Connection, *, stay: timedelta, actor: str, now: datetime) -> int:
    """Wish it, each with its event, and return of how many trainings; people's wishes stay as they are."""
    if connection.dialect.name == "postgresql":  # on SQLite every writer waits anyway
        # Two reconcilers must not ask two trainings to make room for the same job.
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_KEY)))
    return sum(_wish(connection, one, actor=actor, now=now) for one in asked(connection, stay=stay, now=now))


def _wish(connection: Connection, one: yielding.Asked, *, actor: str, now: datetime) -> bool:
    training, urgent = one.training, one.urgent
    still = (_jobs.id == training.job, _jobs.state == states.JobState.RUNNING, _jobs.wish.in_(_STAY))
    same = _jobs.yields_to.is_not_distinct_from(training.yields_to)
    values = moves.NO_WISH if urgent is None else {"wish": states.Wish.YIELD, "yields_to": urgent.job}
    row = connection.execute(update(models.jobs).where(*still, same).values(values).returning(models.jobs)).first()
    if row is None:
        return False
    kind, detail = "yield_taken_back", f"to {training.yields_to}, which needs no room any more"
    if urgent is not None:
        kind, detail = "yield_requested", f"to {urgent.job}, whose priority is {urgent.priority}, not {row.priority}"
    moves.record(connection, row, old=row, kind=kind, actor=actor, now=now, detail=detail)
    return True


def _may_yield(row: Row[Any]) -> bool:
    return bool(row.spec.get("preemptible", False))  # a job of an earlier version does not say it


@dataclass(kw_only=True)
class _Look:
    """What claims would come to at one moment; nothing is read twice."""

    connection: Connection
    now: datetime

    def urgent(self, training: Row[Any]) -> yielding.Urgent | None:
        """Return whom a training could make room for: the next claim of its worker, unless another one has a place."""
        worker = self._claiming.get(training.worker)
        if worker is None:
            return None
        room = self._free(worker) + resources.of(training.demand).gpus
        seq = claims.next_but_for(self.connection, _asker(worker), training, self.now, room=room)
        if seq is None or seq == training.seq or seq in self._with_a_place:
            return None
        job = self.connection.execute(select(_jobs.id, _jobs.priority).where(_jobs.seq == seq)).one()
        return yielding.Urgent(job=job.id, priority=job.priority)

    @cached_property
    def _with_a_place(self) -> set[int]:
        """The jobs, by `seq`, for which there are enough free devices: a slot is about to take them."""
        return {
            head.contender.seq for one in self._claiming.values() if self._free(one) for head in self._taken_by(one)
        }

    def _taken_by(self, worker: jobs.Worker) -> Iterator[claims.Head]:
        who = _asker(worker)
        found = claims.heads(self.connection, who, states.Stage.TRAIN, self.now)
        return claims.within(self.connection, who, found, self._free(worker))

    def _free(self, worker: jobs.Worker) -> int:
        return len(worker.devices) - self._busy[worker.id]

    @cached_property
    def _busy(self) -> Counter[str]:
        """How many devices of each worker are busy."""
        on_devices = (_jobs.state == states.JobState.RUNNING, _jobs.stage != states.Stage.DOWNLOAD)
        busy: Counter[str] = Counter()
        for row in self.connection.execute(select(_jobs.worker, _jobs.stage, _jobs.demand).where(*on_devices)):
            busy[row.worker] += resources.of(row.demand).at(row.stage).gpus
        return busy

    @cached_property
    def _claiming(self) -> dict[str, jobs.Worker]:
        """The workers that claim jobs, by id."""
        claiming = (_workers.state == states.WorkerState.ACTIVE, _workers.wish == states.WorkerWish.RUN)
        found = self.connection.execute(select(models.workers).where(*claiming).order_by(_workers.id))
        return {row.id: rows.worker(row, (), self.now) for row in found}


def _asker(worker: jobs.Worker) -> claims.Asker:
    return claims.Asker(
        worker=worker.id, root=worker.artifact_root or "", limits=worker.limits, pool=gangs.Alone(worker.offer)
    )
