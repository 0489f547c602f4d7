"""The store's side for those who wait: a job's place, who is before it, and what it waits for."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.engine import Connection

from orchestrator.core import clock, dependencies, gangs, ids, jobs, ordering, states
from orchestrator.store import claims, copies, engine, held, jobmodels, people, peoplebase, rows
from orchestrator.store import dependencies as stored


class Places(peoplebase.Places):
    """Where waiting jobs stand, in SQL."""

    database: engine.Database
    clock: clock.Clock

    def ahead(self, job_id: str) -> int:
        """Return how many queued jobs would be claimed for the same stage before this one, as things stand."""
        return self.standing(job_id).ahead

    @engine.reads
    def standing(self, connection: Connection, job_id: str) -> ordering.Standing:
        """Return how a queued job stands among those that wait for its stage."""
        engine.at_one_moment(connection)  # a job that is claimed between two reads would stand nowhere
        job = people.row(connection, job_id)
        waits = job.state is states.JobState.QUEUED
        return claims.standing(connection, job, self.clock.now()) if waits else ordering.NOWHERE

    @engine.writes
    def rehearse(
        self, connection: Connection, new: jobs.NewJob
    ) -> tuple[jobs.Job, list[dependencies.Dependency], ordering.Standing]:
        """Return how a job would stand that is submitted now: it is stored, looked at, and taken back."""
        now = self.clock.now()
        with connection.begin_nested() as undone:
            row = people.known(connection, new)
            if row is None:  # the key is left out: whoever asks sees by it that the job is an earlier one
                new = replace(new, idempotency_key=None)
                row = people.insert(connection, new, job_id=ids.new_id(), now=now)
            waits = row.state is states.JobState.QUEUED
            standing = claims.standing(connection, row, now) if waits else ordering.NOWHERE
            found = rows.job(row), stored.of(connection, row.id), standing
            undone.rollback()
        return found

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
        whole = select(jobmodels.jobs).where(jobmodels.jobs.c.seq.in_(found.values()))
        by_seq = {row.seq: rows.job(row) for row in connection.execute(whole)} if found else {}
        return {worker: by_seq[seq] for worker, seq in found.items()}

    @engine.reads
    def hosts(self, connection: Connection) -> list[gangs.Host]:
        """Return the workers that begin trainings, with what runs on their devices."""
        return [host for host, _ in held.hosts(connection)]

    @engine.reads
    def running(self, connection: Connection, stage: states.Stage) -> list[jobs.Job]:
        """Return the jobs that run at a stage, in the order of submission."""
        return [rows.job(row) for row in claims.at_stage(connection, stage)]

    @engine.reads
    def copies(self, connection: Connection, job: jobs.Job) -> frozenset[str]:
        """Return the hosts that have the job's data, as far as jobs have told."""
        return copies.hosts_of(connection, job.data_hash, job.spec.masked().data)

    @engine.reads
    def dependencies(self, connection: Connection, job_id: str) -> list[dependencies.Dependency]:
        """Return what the job waits for, or has waited for."""
        return stored.of(connection, job_id)


def _held_back(connection: Connection, now: datetime) -> dict[str, int]:
    """Return the `seq` of the job for which each worker holds back, of those that do."""
    found = {}
    for host, row in held.hosts(connection):
        who, room = claims.asker(row), host.free
        for head in claims.heads(connection, who, states.Stage.TRAIN, now):
            if taken := gangs.chosen(head.demand, room):
                room = gangs.rest(room, taken)
            elif head.demand.gpus > 1 and held.holds_back(connection, row.id, head.demand, seq=head.contender.seq):
                found[row.id] = head.contender.seq
                break
    return found
