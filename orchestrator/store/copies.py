"""Which hosts have which data sets: what jobs have told.

What is removed since is not unsaid, but forgotten in time: until then a host that has it no more costs another one the
head start of `core.nearness`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from orchestrator.core import masking, nearness, states
from orchestrator.store import attemptmodels, claims, engine, held, hostmodels, jobmodels

_copies = hostmodels.copies.c
_jobs = jobmodels.jobs.c
_attempts = attemptmodels.attempts.c
_workers = hostmodels.workers.c


def keep(connection: Connection, job: Row[Any], content_hash: str, *, now: datetime) -> None:
    """Note that the host on which a job runs has a data set, and forget what none has had for long."""
    connection.execute(hostmodels.copies.delete().where(_copies.seen_at < now - nearness.REMEMBERED))
    mine = (_attempts.job_id == job.id, _attempts.attempt == job.attempt)
    host = connection.execute(select(_attempts.host).where(*mine)).scalar_one()
    seen = {"source": _source(job), "seen_at": now}
    noting = engine.insert(connection, hostmodels.copies).values(host=host, hash=content_hash, **seen)
    connection.execute(noting.on_conflict_do_update(index_elements=["host", "hash"], set_=seen))


def hosts_of(connection: Connection, data_hash: str | None, source: str) -> frozenset[str]:
    """Return the hosts that have some data: by its content where that is known, else by where it is from."""
    alike = _copies.hash == data_hash if data_hash else _copies.source == source
    return frozenset(connection.execute(select(_copies.host).where(alike)).scalars())


def for_another(
    connection: Connection, who: claims.Asker, host: str, stages: Sequence[states.Stage], now: datetime
) -> states.Stage | None:
    """Return the stage of the job that is next for a worker on a host where it lets another one begin that."""
    several = select(_workers.id).where(_workers.ended_at.is_(None), _workers.host != host).limit(1)
    if connection.execute(several).first() is None:  # the usual answer, and the cheap one
        return None
    for stage in stages:
        for head, _ in claims.takeable(connection, who, stage, now):
            lets = stage is not states.Stage.EVALUATE and _lets_another(connection, head, host)
            return stage if lets else None
    return None


def _lets_another(connection: Connection, head: claims.Head, host: str) -> bool:
    job = connection.execute(select(jobmodels.jobs).where(_jobs.seq == head.contender.seq)).one()
    having, there = hosts_of(connection, job.data_hash, _source(job)), held.hosts(connection)
    able = {one.worker for one in held.able(connection, job.seq, there)}
    hosts = [(row.host, one) for one, row in there if one.worker in able]
    return nearness.lets_another(head.demand, host=host, having=having, hosts=hosts)


def _source(job: Row[Any]) -> str:
    return masking.data(str(job.spec.get("data", "")))
