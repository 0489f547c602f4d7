"""Which worker holds its free devices back for a job on several: `core.gangs`, over what the database knows."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, false, literal, select
from sqlalchemy.engine import Connection

from orchestrator.core import gangs, resources, specs, states
from orchestrator.store import attemptmodels, hostmodels, jobmodels, rows

_jobs = jobmodels.jobs.c
_attempts = attemptmodels.attempts.c
_workers = hostmodels.workers.c
_ON_DEVICES = (states.Stage.TRAIN, states.Stage.EVALUATE)


def holds_back(connection: Connection, worker: str, demand: resources.Demand, *, seq: int) -> bool:
    """Whether it is this worker that holds back for a job that needs more devices than are free here."""
    holder = gangs.holder(demand, able(connection, seq, hosts(connection)))
    return holder is not None and holder.worker == worker


def able(connection: Connection, seq: int, among: Iterable[tuple[gangs.Host, Row[Any]]]) -> list[gangs.Host]:
    """Return the workers that reach a job's checkpoints, and know jobs of its version."""
    job = connection.execute(select(_jobs.artifact_root, _jobs.spec_version).where(_jobs.seq == seq)).first()
    return [
        host
        for host, row in among
        if job is not None
        and job.artifact_root in {None, row.artifact_root}
        and job.spec_version <= int(row.versions.get("spec", specs.SPEC_VERSION))
    ]


def hosts(connection: Connection) -> list[tuple[gangs.Host, Row[Any]]]:
    """Return the workers that begin trainings, with their rows."""
    runs = literal(states.JobState.RUNNING, _jobs.state.type, literal_execute=True)  # `engine.plan_once` says why
    busy = (_jobs.state == runs, _jobs.stage.in_(_ON_DEVICES), _jobs.blocked == false())
    present = (_attempts.job_id == _jobs.id, _attempts.attempt == _jobs.attempt)
    # No join: SQLite would begin with all the attempts there ever were.
    devices = select(_attempts.devices).where(*present).scalar_subquery().label("devices")
    running = select(_jobs.worker, _jobs.id, _jobs.stage, _jobs.demand, devices)
    taken = defaultdict[str, list[gangs.Taken]](list)
    for row in connection.execute(running.where(*busy)):
        demand = resources.of(row.demand).at(row.stage)
        taken[row.worker].append(gangs.Taken(job=row.id, demand=demand, devices=tuple(row.devices or ())))
    ready = (_workers.state == states.WorkerState.ACTIVE, _workers.wish == states.WorkerWish.RUN)
    found = connection.execute(select(hostmodels.workers).where(*ready).order_by(_workers.id))
    return [(gangs.Host(worker=row.id, offer=rows.offer(row), taken=tuple(taken[row.id])), row) for row in found]
