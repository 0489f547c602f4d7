"""Which worker holds its free devices back for a job on several: `core.gangs`, over what the database knows."""

from collections import Counter

from sqlalchemy import Row, false, select
from sqlalchemy.engine import Connection

from orchestrator.core import gangs, resources, specs, states
from orchestrator.store import models, rows

_jobs = models.jobs.c
_workers = models.workers.c
_ON_DEVICES = (states.Stage.TRAIN, states.Stage.EVALUATE)


def holds_back(connection: Connection, worker: str, demand: resources.Demand, *, seq: int) -> bool:
    """Whether it is this worker that holds back for a job that needs more devices than are free here."""
    job = connection.execute(select(_jobs.artifact_root, _jobs.spec_version).where(_jobs.seq == seq)).first()
    able = [
        host
        for host, row in hosts(connection)
        if job is not None
        and job.artifact_root in {None, row.artifact_root}
        and job.spec_version <= int(row.versions.get("spec", specs.SPEC_VERSION))
    ]
    holder = gangs.holder(demand, able)
    return holder is not None and holder.worker == worker


def hosts(connection: Connection) -> list[tuple[gangs.Host, Row[tuple[object, ...]]]]:
    """Return the workers that take jobs, with their rows."""
    busy = (_jobs.state == states.JobState.RUNNING, _jobs.stage.in_(_ON_DEVICES), _jobs.blocked == false())
    taken = Counter[str]()
    for row in connection.execute(select(_jobs.worker, _jobs.stage, _jobs.demand).where(*busy)):
        taken[row.worker] += resources.of(row.demand).at(row.stage).gpus
    ready = (_workers.state == states.WorkerState.ACTIVE, _workers.wish == states.WorkerWish.RUN)
    found = connection.execute(select(models.workers).where(*ready).order_by(_workers.id))
    return [(gangs.Host(worker=row.id, offer=rows.offer(row), taken=taken[row.id]), row) for row in found]


class Seen(gangs.Alone):
    """The devices of a worker as the database knows them."""

    def __init__(self, host: gangs.Host) -> None:
        super().__init__(host.offer)
        self._host = host

    def hold(self, demand: resources.Demand) -> tuple[resources.Device, ...]:
        """Return as many devices as are demanded, where so many are free."""
        return self.offer.devices[: demand.gpus] if self._host.free(demand) >= demand.gpus else ()
