"""The contract of the store for people: what they submit, look at and steer."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from orchestrator.core.dependencies import Dependency
from orchestrator.core.gangs import Host
from orchestrator.core.history import History
from orchestrator.core.jobs import (
    Attempt,
    Checkpoint,
    Counts,
    Dataset,
    EpochMetric,
    Evaluation,
    Event,
    Job,
    JobFilter,
    LogChunk,
    NewJob,
    StepMetric,
)
from orchestrator.core.ordering import Standing
from orchestrator.core.provenance import Provenance
from orchestrator.core.states import Stage
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

    def steer(self, change: Change, job_ids: Iterable[str], *, actor: str) -> Iterator[Changed]:
        """Do the same to many jobs, many in one transaction, each with its event; yield what became of each.

        What is refused, by the rules of the verbs above, stays as it is and says why. What is yielded is committed:
        whoever stops half-way knows what was done.
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


class Audits(Protocol):
    """What an audit reads: the rows as they lie."""

    def history(self, job_id: str) -> History:
        """Return every row of the job, on its winning line or not, from one moment; raises `errors.NotFound`."""
        ...
