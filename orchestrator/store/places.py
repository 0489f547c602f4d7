"""The store's side for those who wait: a job's place, who is before it, and what it waits for."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.engine import Connection

from orchestrator.core import clock, dependencies, jobs, ordering, states
from orchestrator.store import base, claims, engine, held, models, people, rows
from orchestrator.store import dependencies as stored


class Places(base.Places):
    """Where waiting jobs stand, in SQL."""

    database: engine.Database
    clock: clock.Clock

    def ahead(self, job_id: str) -> int:
        """Return how many queued jobs would be claimed for the same stage before this one, as things stand."""
        return sum(self.before(job_id).values())

    @engine.reads
    def before(self, connection: Connection, job_id: str) -> dict[str, int]:
        """Return how many jobs of each user these are."""
        engine.at_one_moment(connection)  # a job that is claimed between two reads would stand nowhere
        job = people.row(connection, job_id)
        if job.state is not states.JobState.QUEUED:
            return {}
        own, mine, others = claims.standing(connection, job, self.clock.now())
        return ordering.ahead(mine, others, own=own)

    @engine.reads
    def turns(self, connection: Connection, job_id: str) -> list[ordering.Contender]:
        """Return how each user stands at the stage that a queued job waits for."""
        engine.at_one_moment(connection)
        job = people.row(connection, job_id)
        if job.state is not states.JobState.QUEUED:
            return []
        _, mine, others = claims.standing(connection, job, self.clock.now())
        return ordering.in_turn([mine, *others])

    @engine.reads
    def first(self, connection: Connection, user: str, stage: states.Stage, *, limit: int) -> list[jobs.Job]:
        """Return the first of a user's jobs that wait for a stage and could begin."""
        return [rows.job(row) for row in claims.of_user(connection, user, stage, self.clock.now(), limit)]

    @engine.reads
    def held_back(self, connection: Connection) -> dict[str, jobs.Job]:
        """Return for which job each worker holds its free devices back, by the worker's id."""
        engine.at_one_moment(connection)
        if all(demand.gpus == 1 for demand in claims.demands(connection, states.Stage.TRAIN)):
            return {}  # the usual answer, and the cheap one
        found = _held_back(connection, self.clock.now())
        whole = select(models.jobs).where(models.jobs.c.seq.in_(found.values()))
        by_seq = {row.seq: rows.job(row) for row in connection.execute(whole)} if found else {}
        return {worker: by_seq[seq] for worker, seq in found.items()}

    @engine.reads
    def running(self, connection: Connection, stage: states.Stage) -> list[jobs.Job]:
        """Return the jobs that run at a stage, in the order of submission."""
        return [rows.job(row) for row in claims.at_stage(connection, stage)]

    @engine.reads
    def dependencies(self, connection: Connection, job_id: str) -> list[dependencies.Dependency]:
        """Return what the job waits for, or has waited for."""
        return stored.of(connection, job_id)


def _held_back(connection: Connection, now: datetime) -> dict[str, int]:
    """Return the `seq` of the job for which each worker holds back, of those that do."""
    found = {}
    for host, row in held.hosts(connection):
        who = claims.Asker(
            worker=row.id, root=row.artifact_root or "", limits=rows.limits_of(row), pool=held.Seen(host)
        )
        for head in claims.heads(connection, who, states.Stage.TRAIN, now):
            if who.pool.hold(head.demand):
                break
            if head.demand.gpus > 1 and held.holds_back(connection, row.id, head.demand, seq=head.contender.seq):
                found[row.id] = head.contender.seq
                break
    return found
