"""The contract of the store for workers: what supervisors and nodes do."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.core.gangs import ALONE, Pool
from orchestrator.core.jobs import (
    Attempt,
    Checkpoint,
    Claim,
    Dataset,
    EpochMetric,
    Evaluation,
    Job,
    Lease,
    LogChunk,
    Outcome,
    Progress,
    StepMetric,
    Worker,
    WorkerIdentity,
)
from orchestrator.core.limits import NONE, Limits
from orchestrator.core.provenance import Environment
from orchestrator.core.states import Stage, Wish, WorkerState, WorkerWish
from orchestrator.core.telling import Answer, Notice


class Supervisors(Protocol):
    """What a supervisor does: claim a job, then write with the attempt as the fence."""

    def claim(
        self,
        *,
        worker: WorkerIdentity,
        device: str,
        stages: Sequence[Stage],
        artifact_root: str,
        limits: Limits = NONE,
        pool: Pool = ALONE,
    ) -> Claim | None:
        """Claim the job that is next for the first of `stages` that has one; None where nothing waits.

        Next is whom `core.ordering` says. One transaction: queued → running, attempt + 1, an `attempts` row, an event.
        Eligible: its time has come, what it waits for has ended, its spec version is not newer than ours, its
        checkpoints, where it has any, lie under `artifact_root`, the devices that it demands are free in `pool`, which
        holds them from then on, and as a training it keeps to `limits`. Where a job that needs more devices than are
        free is next, and this worker is the one that holds back for it (`core.gangs`), no later one is claimed. A
        worker that is unhealthy or is to drain gets nothing.
        """
        ...

    def for_another(
        self,
        *,
        worker: WorkerIdentity,
        stages: Sequence[Stage],
        artifact_root: str,
        limits: Limits = NONE,
        pool: Pool = ALONE,
    ) -> Stage | None:
        """Return the stage of the job that such a claim would be of, where that is for another host by `core.nearness`.

        That one has its data, which this host lacks, as far as jobs have told, and free devices for it.
        """
        ...

    def beat(self, claim: Claim) -> Wish:
        """Advance the lease's beat counter and return what is wished of the job."""
        ...

    def wish(self, claim: Claim) -> Wish:
        """Return what is wished of the job, without a write; raises `errors.Stale` like a fenced write."""
        ...

    def record_progress(self, claim: Claim, progress: Progress) -> None:
        """Store how far the stage is."""
        ...

    def record_resumed(self, claim: Claim, *, attempt: int | None, step: int) -> None:
        """Store where this attempt's training goes on: rows of earlier attempts past that step leave the line."""
        ...

    def record_environment(self, claim: Claim, environment: Environment) -> None:
        """Store what this attempt trains with."""
        ...

    def record_steps(self, claim: Claim, steps: Iterable[StepMetric]) -> None:
        """Store step metrics; a row that exists stays as it is."""
        ...

    def record_checkpoint(
        self, claim: Claim, checkpoint: Checkpoint, metrics: Iterable[EpochMetric] = ()
    ) -> tuple[Checkpoint, ...]:
        """Store a checkpoint and the epoch that it closes; return all that are kept then, newest first.

        The rows of those that retention lets go are gone with the same commit; the caller deletes the files of what is
        not returned after it. A checkpoint beyond every earlier one is progress: it resets the job's `retries`.
        """
        ...

    def record_epoch(self, claim: Claim, metrics: Iterable[EpochMetric], *, step: int) -> None:
        """Store an epoch that ended with `step`, whose checkpoint was superseded before the database heard of it."""
        ...

    def record_dataset(self, claim: Claim, dataset: Dataset) -> None:
        """Store the data set and fix the job to its content hash."""
        ...

    def record_evaluation(self, claim: Claim, evaluation: Evaluation) -> None:
        """Store an evaluation."""
        ...

    def record_log(self, claim: Claim, chunk: LogChunk) -> None:
        """Store a piece of the log; one that exists stays as it is."""
        ...

    def note(self, claim: Claim, *, kind: str, detail: str) -> None:
        """Add a line to the job's history that changes no state, once for each attempt."""
        ...

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """End the attempt and move the job on: next stage, success, back to the queue, paused, cancelled or failed.

        Whether a failed attempt is tried again, and when, is `core.retry`'s decision. A second call with the same
        outcome, by one who has not heard of the first one's commit, changes nothing and returns the job as it stands.
        """
        ...


class Fleet(Protocol):
    """What nodes and reconcilers do."""

    def register(self, worker: Worker) -> None:
        """Store a worker as active."""
        ...

    def beat_worker(self, worker_id: str, state: WorkerState) -> WorkerWish:
        """Advance a worker's beat counter, store its state, and return what is wished of it."""
        ...

    def workers(self) -> list[Worker]:
        """Return the workers that are not stopped or lost, and those that ended within the last day."""
        ...

    def time(self) -> datetime:
        """Return the time by the clock that all users of the database share."""
        ...

    def wish_worker(self, worker_id: str, wish: WorkerWish) -> None:
        """Wish something of a worker: from now on it claims nothing, or again what there is.

        Raises `errors.NotFound`, or `errors.IllegalMove` for one that has ended.
        """
        ...

    def forget_worker(self, worker_id: str) -> None:
        """Remove a worker that has ended; raises `errors.NotFound`, or `errors.IllegalMove` for one that lives."""
        ...

    def ended_attempts(self, worker_id: str, *, limit: int = 100) -> list[Attempt]:
        """Return the last attempts of a worker that have ended, newest first."""
        ...

    def lose_worker(self, worker_id: str, *, beat: int) -> bool:
        """Mark a worker lost if its beat counter is still `beat`; return whether it was."""
        ...

    def leases(self) -> list[Lease]:
        """Return the leases of all running jobs."""
        ...

    def take_back(self, lease: Lease, *, actor: str, detail: str) -> Job | None:
        """End an attempt as lost, if (attempt, beat) still stand as in `lease`; None where they do not.

        The job moves as after `finish` with the reason lost; one that was to be cancelled is cancelled.
        """
        ...

    def unblock(self, *, actor: str) -> int:
        """Look at every blocked job whose hour has come or whose dependencies have ended; return how many there were.

        Each may be claimed from now on, or fails with the reason `dependency`, or waits for the rest.
        """
        ...

    def make_room(self, *, actor: str, stay: timedelta) -> int:
        """Wish preemptible trainings to yield to urgent jobs, and take it back where no room is needed any more.

        Which of them, after a `stay` at least, is `core.yielding`'s decision; cancel and pause stay as they are. Each
        has its event. Return of how many trainings something else is wished.
        """
        ...

    def release_host(self, *, actor: str, host: str, alive: Callable[[WorkerIdentity], bool]) -> list[Job]:
        """Take back at once what dead workers of this host hold, and mark these lost; return the jobs."""
        ...


class Notices(Protocol):
    """The outbox of what is to be told of jobs."""

    def next_notice(self, answer: Answer | None = None, *, more: bool = True) -> Notice | None:
        """Store what became of the last try, and return the notice to try next; None where none is due.

        The try is counted before it is returned, as one that may be heard. Not with `more` off: nothing is returned.
        """
        ...
