"""The contract of the store: what every implementation does, and what its one test suite checks.

Seven groups of methods: people (submit, look up), steering, places (of jobs that wait), supervisors (claim, then fenced
writes), the fleet (workers and the reconciler), notices, and audits. A fenced write raises `errors.Stale` when the job
has another attempt or is no longer running, and then nothing of it is written. Every change of state writes its event
in the same transaction. Every method raises `errors.DatabaseUnavailable` when the database is out of reach, and also
where a commit's answer was lost: a fenced write may simply be done again, and a claim of which its worker has not heard
is returned by the next call.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.core.dependencies import Dependency
from orchestrator.core.gangs import ALONE, Host, Pool
from orchestrator.core.history import History
from orchestrator.core.jobs import (
    Attempt,
    Checkpoint,
    Claim,
    Counts,
    Dataset,
    EpochMetric,
    Evaluation,
    Event,
    Job,
    JobFilter,
    Lease,
    LogChunk,
    NewJob,
    Outcome,
    Progress,
    StepMetric,
    Worker,
    WorkerIdentity,
)
from orchestrator.core.limits import NONE, Limits
from orchestrator.core.ordering import Standing
from orchestrator.core.provenance import Environment, Provenance
from orchestrator.core.states import Stage, Wish, WorkerState, WorkerWish
from orchestrator.core.telling import Answer, Notice
from orchestrator.core.verbs import Change, Changed


class People(Protocol):
    """What people do: submit, look at."""

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job as queued for its first stage and return it, and whether it is new.

        An answer that is lost is asked for once more; the error that follows names the id that may have been stored.
        A known idempotency key with the same spec returns the earlier job; with another spec it raises
        `errors.IdempotencyConflict`. A job with a parent and `start_step` starts from that checkpoint, which stays
        until it has succeeded; `errors.NotFound` where it has gone.
        """
        ...

    def find(self, text: str) -> Job:
        """Return the one job that `text` means: an exact id, an exact name, a prefix, `@latest`, `@last-failed`.

        Raises `errors.NotFound`, or `errors.Ambiguous` with the candidates' ids.
        """
        ...

    def get(self, job_id: str) -> Job:
        """Return the job with exactly this id; raises `errors.NotFound`."""
        ...

    def jobs(self, which: JobFilter) -> list[Job]:
        """Return jobs, the newest first unless the filter says otherwise."""
        ...

    def results(self, spec_hash: str) -> list[Job]:
        """Return the last jobs that have succeeded with a spec of this digest, a few, the newest first."""
        ...

    def counts(self, *, eligible: bool = True) -> Counts:
        """Return how many jobs stand in each state, and how many could be claimed now at each stage.

        The latter takes longer, and is left out without `eligible`.
        """
        ...

    def deleted(self, job_ids: Iterable[str]) -> set[str]:
        """Return which of these ids are those of deleted jobs."""
        ...

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the job's attempts, oldest first."""
        ...

    def provenance(self, job_id: str) -> Provenance:
        """Return where the job comes from, as far as that was known when it was submitted."""
        ...

    def events(self, job_id: str, *, after: int = 0) -> list[Event]:
        """Return the job's history past the event with `seq` = `after`, oldest first."""
        ...

    def epochs(self, job_id: str) -> list[EpochMetric]:
        """Return the epoch metrics on the winning line, by epoch, train before val."""
        ...

    def steps(self, job_id: str, *, name: str = "loss", after: int = 0) -> list[StepMetric]:
        """Return the named step metric on the winning line, for steps past `after`, by step."""
        ...

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the checkpoints on the winning line that are still on disk, newest first."""
        ...

    def evaluation(self, job_id: str) -> Evaluation | None:
        """Return the newest evaluation of the job."""
        ...

    def logs(self, job_id: str, *, after: tuple[int, int] | None = None) -> list[LogChunk]:
        """Return log chunks past (attempt, sequence), all attempts in order."""
        ...

    def dataset(self, content_hash: str) -> Dataset | None:
        """Return what is known of a data set."""
        ...


class Steering(Protocol):
    """How people steer jobs."""

    def cancel(self, job_id: str, *, actor: str) -> Job:
        """Cancel: a waiting job at once, a running one by wish. Raises `errors.IllegalMove` on a finished job.

        Cancelling what is cancelled, or is being cancelled, changes nothing and returns the job.
        """
        ...

    def pause(self, job_id: str, *, actor: str) -> Job:
        """Set aside: a waiting job at once, a running one by wish, after a checkpoint at its next step.

        Pausing what is paused, or is being paused, changes nothing and returns the job. Raises `errors.IllegalMove` on
        a job that has ended or is being cancelled.
        """
        ...

    def resume(self, job_id: str, *, actor: str) -> Job:
        """Queue a paused job at the stage and checkpoint it stands at, or take back the wish to pause a running one.

        Raises `errors.IllegalMove` in every other state.
        """
        ...

    def delete(self, job_id: str, *, actor: str) -> tuple[str, ...]:
        """Remove a job that is not running, for good; return the ids of the artifact roots that hold its files.

        What remains is the note that `deleted` reads. Raises `errors.IllegalMove` on a running job, and while others
        that have not succeeded start from its checkpoints.
        """
        ...

    def retry(self, job_id: str, *, actor: str, from_start: bool = False) -> Job:
        """Begin a new run of a failed or cancelled job, at the stage it had reached, from its last checkpoint.

        With `from_start` it forgets its checkpoints and begins with its first stage, on any worker. Raises
        `errors.IllegalMove` in every other state.
        """
        ...

    def extend(self, job_id: str, *, epochs: int, actor: str) -> Job:
        """Begin a new run of a job that has ended, with so many epochs in all: it goes on from its last checkpoint.

        Its events keep the end that it had. Raises `errors.IllegalMove` while it has not ended, where it has so many
        epochs already, and where patience has ended it; `errors.InvalidSpec` for a number that cannot be.
        """
        ...

    def steer(self, change: Change, job_ids: Iterable[str], *, actor: str) -> list[Changed]:
        """Do the same to many jobs, many in one transaction, each with its event.

        What is refused, by the rules of the verbs above, stays as it is and says why.
        """
        ...


class Places(Protocol):
    """Where jobs that wait stand."""

    def standing(self, job_id: str) -> Standing:
        """Return how a queued job stands among those that wait for its stage; `ordering.NOWHERE` for another one."""
        ...

    def rehearse(self, new: NewJob) -> tuple[Job, list[Dependency], Standing]:
        """Return what `submit` would, what that job waits for, and how it stands; of a new one nothing stays."""
        ...

    def first(self, user: str, stage: Stage, *, limit: int) -> list[Job]:
        """Return the first of a user's jobs that wait for a stage and could begin, in the order of their claims."""
        ...

    def ahead(self, job_id: str) -> int:
        """Return how many queued jobs would be claimed for the same stage before this one, as things stand."""
        ...

    def held_back(self) -> dict[str, Job]:
        """Return for which job each worker holds its free devices back, by the worker's id."""
        ...

    def hosts(self) -> list[Host]:
        """Return the workers that begin trainings, with what runs on their devices."""
        ...

    def running(self, stage: Stage) -> list[Job]:
        """Return the jobs that run at a stage, in the order of submission."""
        ...

    def copies(self, job: Job) -> frozenset[str]:
        """Return the hosts that have the job's data, which need not be stored, as far as jobs have told."""
        ...

    def dependencies(self, job_id: str) -> list[Dependency]:
        """Return what the job waits for, or has waited for."""
        ...


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


class Audits(Protocol):
    """What an audit reads: the rows as they lie."""

    def history(self, job_id: str) -> History:
        """Return every row of the job, on its winning line or not, from one moment; raises `errors.NotFound`."""
        ...


class Store(People, Steering, Places, Supervisors, Fleet, Notices, Audits, Protocol):
    """The whole store."""

    def close(self) -> None:
        """Let go of every connection."""
        ...
