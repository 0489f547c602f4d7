"""Making room for urgent jobs: `core.yielding`, over the jobs that run and those that a claim would take next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import Row, exists, func, select, update
from sqlalchemy.engine import Connection

from orchestrator.core import gangs, states, yielding
from orchestrator.store import attemptmodels, claims, held, jobmodels, moves

#: Key of PostgreSQL's advisory lock under which it is decided who yields: "yiel" in ASCII.
_ADVISORY_KEY = 0x7969656C

_jobs = jobmodels.jobs.c
_attempts = attemptmodels.attempts.c
_STAY = (states.Wish.RUN, states.Wish.YIELD)
_PRESENT = (_attempts.job_id == _jobs.id, _attempts.attempt == _jobs.attempt)


def asked(connection: Connection, *, stay: timedelta, now: datetime) -> list[yielding.Asked]:
    """Return the trainings of which something else is wished from now on."""
    # No join, as in `held.hosts`.
    begun = select(jobmodels.jobs, select(_attempts.started_at).where(*_PRESENT).scalar_subquery().label("began_at"))
    training = (_jobs.state == states.JobState.RUNNING, _jobs.stage == states.Stage.TRAIN, _jobs.wish.in_(_STAY))
    found = [row for row in connection.execute(begun.where(*training).order_by(_jobs.seq)) if _may_yield(row)]
    if not found:  # as nearly always
        return []
    by_id = {row.id: row for row in found}
    look = _Look(connection=connection, now=now, running=by_id)
    trainings = [
        yielding.Training(job=row.id, priority=row.priority, began_at=row.began_at, yields_to=row.yields_to)
        for row in found
    ]
    return list(yielding.asked(trainings, lambda one: look.urgent(by_id[one.job]), look.together, stay=stay, now=now))


def ask(connection: Connection, *, stay: timedelta, actor: str, now: datetime) -> int:
    """Wish it, each with its event, and return of how many trainings; people's wishes stay as they are."""
    if connection.dialect.name == "postgresql":  # on SQLite every writer waits anyway
        # Two reconcilers must not ask two trainings to make room for the same job.
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_KEY)))
    return sum(_wish(connection, one, actor=actor, now=now) for one in asked(connection, stay=stay, now=now))


def _wish(connection: Connection, one: yielding.Asked, *, actor: str, now: datetime) -> bool:
    training, urgent = one.training, one.urgent
    # It may have ended since it was looked at, and its job have been claimed again: for its evaluation, perhaps.
    begun = exists().where(*_PRESENT, _attempts.started_at == training.began_at)
    still = (_jobs.id == training.job, _jobs.state == states.JobState.RUNNING, _jobs.wish.in_(_STAY), begun)
    same = _jobs.yields_to.is_not_distinct_from(training.yields_to)
    values = moves.NO_WISH if urgent is None else {"wish": states.Wish.YIELD, "yields_to": urgent.job}
    row = connection.execute(
        update(jobmodels.jobs).where(*still, same).values(values).returning(jobmodels.jobs)
    ).first()
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
    running: Mapping[str, Row[Any]]  #: the trainings that may yield, by id

    def urgent(self, training: Row[Any]) -> yielding.Urgent | None:
        """Return whom a training could make room for: the next claim of its worker, unless another one has a place."""
        if training.worker not in self._hosts:
            return None
        host, row = self._hosts[training.worker]
        seq = self._next_but_for(training, host.without(training.id), row)
        return None if seq is None or seq == training.seq or seq in self._with_a_place else self._urgent(seq)

    def together(self, trainings: Sequence[yielding.Training]) -> Iterator[yielding.Together]:
        """Yield jobs on several devices for which trainings of one worker could make room, and the first that will do.

        Where some have been asked already, that worker's come first.
        """
        by_worker: dict[str, list[yielding.Training]] = {}
        for one in trainings:
            by_worker.setdefault(self.running[one.job].worker, []).append(one)
        for worker, some in by_worker.items():
            if len(some) > 1 and worker in self._hosts:
                yield from self._together_at(*self._hosts[worker], some)

    def _together_at(
        self, host: gangs.Host, row: Row[Any], trainings: Sequence[yielding.Training]
    ) -> Iterator[yielding.Together]:
        found = claims.heads(self.connection, claims.asker(row), states.Stage.TRAIN, self.now)
        for head in found:
            if head.demand.gpus == 1 or head.contender.seq in self._with_a_place:
                continue
            urgent = self._urgent(head.contender.seq)
            lower = [one for one in trainings if one.priority < urgent.priority]
            some = yielding.enough_of(head.demand, host, lower)
            if some and self._is_next(head, host, found, some) and self._holds_back(head, host, some):
                yield urgent, some

    def _next_but_for(self, training: Row[Any], without: gangs.Host, row: Row[Any]) -> int | None:
        """Return the `seq` of the job that a worker would claim next if a training of its own waited as well.

        None where it would hold all of its devices back.
        """
        who = claims.asker(row)
        waiting = {
            head.contender.seq: head
            for head in claims.heads(self.connection, who, states.Stage.TRAIN, self.now, but_for=training)
        }
        own = claims.of_training(self.connection, training, self.now)
        back = replace(own.contender, running=own.contender.running - 1)
        others = [head.contender for seq, head in waiting.items() if seq != back.seq]
        waiting[back.seq] = own
        in_turn = [waiting[one.seq] for one in yielding.in_turn(others, back)]
        first = next(claims.within(self.connection, who, in_turn, without.free), None)
        return None if first is None else first.contender.seq

    def _is_next(
        self, gang: claims.Head, host: gangs.Host, waiting: Sequence[claims.Head], some: Sequence[yielding.Training]
    ) -> bool:
        """Whether a job on several devices goes before all that would take one of these, while trainings go."""
        devices = gangs.different(gang.demand, host.offer.devices)
        backs = [claims.of_training(self.connection, self.running[one.job], self.now) for one in some]
        by_seq = {head.contender.seq: head for head in (*waiting, *backs)}
        others = [head.contender for head in waiting]
        for one in yielding.in_turn_meanwhile(others, [back.contender for back in backs], gang.contender):
            if one.seq == gang.contender.seq:
                return True
            if gangs.different(by_seq[one.seq].demand, devices):
                return False
        return False

    def _holds_back(self, gang: claims.Head, host: gangs.Host, some: Sequence[yielding.Training]) -> bool:
        """Whether a worker holds back for a job, whichever of some trainings has gone first."""
        others = held.able(self.connection, gang.contender.seq, self._hosts.values())
        for one in some:
            there = [host.without(one.job) if other.worker == host.worker else other for other in others]
            holder = gangs.holder(gang.demand, there)
            if holder is None or holder.worker != host.worker:
                return False
        return True

    def _urgent(self, seq: int) -> yielding.Urgent:
        job = self.connection.execute(select(_jobs.id, _jobs.priority).where(_jobs.seq == seq)).one()
        return yielding.Urgent(job=job.id, priority=job.priority)

    @cached_property
    def _with_a_place(self) -> set[int]:
        """The jobs, by `seq`, for which there are enough free devices: a slot is about to take them."""
        return {
            head.contender.seq for host, row in self._hosts.values() if host.free for head in self._taken(host, row)
        }

    def _taken(self, host: gangs.Host, row: Row[Any]) -> Iterator[claims.Head]:
        who = claims.asker(row)
        found = claims.heads(self.connection, who, states.Stage.TRAIN, self.now)
        return claims.within(self.connection, who, found, host.free)

    @cached_property
    def _hosts(self) -> dict[str, tuple[gangs.Host, Row[Any]]]:
        """The workers that begin trainings, by id."""
        return {host.worker: (host, row) for host, row in held.hosts(self.connection)}
