"""Jobs that start from a checkpoint of another, their parent: it stays until they have succeeded."""

from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import jobs, states
from orchestrator.store import attemptmodels, jobmodels, line, rows

_jobs = jobmodels.jobs.c


def held(connection: Connection, parent: str) -> dict[int, list[str]]:
    """Return the steps of the parent's checkpoints that stay, and the ids of the jobs that start from each."""
    needing = select(_jobs.start_step, _jobs.id).where(
        _jobs.parent == parent, _jobs.start_step.is_not(None), _jobs.state != states.JobState.SUCCEEDED
    )
    found: dict[int, list[str]] = {}
    for step, job_id in connection.execute(needing.order_by(_jobs.seq)):
        found.setdefault(step or 0, []).append(job_id)
    return found


def require_free(connection: Connection, parent: str, *, doing: str) -> None:
    """Raise `IllegalMove` while other jobs start from checkpoints of this one, whose row is locked."""
    needing = [job_id for ids in held(connection, parent).values() for job_id in ids]
    if needing:
        named = ", ".join(needing[:3]) + (f" and {len(needing) - 3} more" if needing[3:] else "")
        raise errors.IllegalMove(
            f"Job {parent} cannot be {doing}: {named} {'start' if needing[1:] else 'starts'} from its checkpoint.",
            why="It is kept until they have succeeded.",
            hint=f"`orch wait {needing[0]}`, or delete what starts from it first.",
        )


def require_there(connection: Connection, parent: Row[Any], step: int) -> None:
    """Raise `NotFound` unless the parent, whose row is locked, has a checkpoint of that step."""
    if all(checkpoint.step != step for checkpoint in line.checkpoints(connection, parent.id)):
        raise errors.NotFound(
            f"The checkpoint of step {step} of job {parent.id} has just gone.",
            why="The job has gone on, and keeps its best and its newest ones.",
            hint="Submit again.",
        )


def require_own(connection: Connection, job: Row[Any]) -> None:
    """Raise `IllegalMove` where another's checkpoint, from which a job would start again, went behind its success."""
    if job.start_step is not None and checkpoint(connection, job) is None:
        raise errors.IllegalMove(
            f"Job {job.id} cannot be trained anew: the checkpoint that it started from has gone.",
            why=f"It was that of step {job.start_step} of {job.spec['weights'].replace(':', ' ')}.",
            hint=f"`orch retry {job.id}` goes on from its own checkpoints.",
        )


def checkpoint(connection: Connection, job: Row[Any]) -> jobs.Checkpoint | None:
    """Return the checkpoint that the job starts from; None where it starts from none, or its parent was deleted."""
    if job.parent is None or job.start_step is None:
        return None
    found = attemptmodels.checkpoints.c
    of_step = select(attemptmodels.checkpoints).where(found.job_id == job.parent, found.step == job.start_step)
    newest = connection.execute(of_step.order_by(found.attempt.desc()).limit(1)).first()
    return rows.checkpoint(newest) if newest else None
