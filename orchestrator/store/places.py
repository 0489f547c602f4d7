"""The store's side for those who wait: a job's place, who is before it, and what it waits for."""

from sqlalchemy.engine import Connection

from orchestrator.core import clock, dependencies, jobs, ordering, states
from orchestrator.store import base, claims, engine, people, rows
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
    def running(self, connection: Connection, stage: states.Stage) -> list[jobs.Job]:
        """Return the jobs that run at a stage, in the order of submission."""
        return [rows.job(row) for row in claims.at_stage(connection, stage)]

    @engine.reads
    def dependencies(self, connection: Connection, job_id: str) -> list[dependencies.Dependency]:
        """Return what the job waits for, or has waited for."""
        return stored.of(connection, job_id)
