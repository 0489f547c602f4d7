"""Looking at the queue: one job in full, jobs in a row, everything at a glance."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from orchestrator import config
from orchestrator.core import curves, forecast, stopping, streaks
from orchestrator.core.dependencies import Dependency
from orchestrator.core.jobs import (
    Attempt,
    Checkpoint,
    Counts,
    Dataset,
    EpochMetric,
    Evaluation,
    Job,
    JobFilter,
    StepMetric,
    Worker,
)
from orchestrator.core.states import DOING, FINAL, STOPPING, JobState, Stage, WorkerState
from orchestrator.service import health
from orchestrator.store.base import Store

#: Worker states in which it takes or finishes jobs.
LIVING = frozenset({WorkerState.ACTIVE, WorkerState.SPENT, WorkerState.DRAINING, WorkerState.UNHEALTHY})

#: States of jobs that a glance lists.
ACTIVE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)

#: How many jobs a glance on a terminal looks at, which shows fewer: to read a hundred thousand takes half a minute.
GLANCED_AT = 50

#: How many of the finished jobs a short list shows.
LAST_FINISHED = 10

#: Beats that a worker may miss before it is shown as silent. It decides nothing: a reconciler does, by its own clock.
MISSED_BEATS = 6

#: How a stranded job goes on.
WAY_OUT = (
    "Start a worker that has this folder (ORCH_ARTIFACTS); or train without the checkpoints: `orch cancel {id}`, "
    "then `orch retry --from-start {id}`."
)

#: What is said of a worker that is spent.
SPENT = "has taken on as many jobs as `--max-jobs` lets it"

#: What is said of a worker that is silent, and of the jobs that it holds.
SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The queue and the workers at a glance."""

    counts: Counts
    active: tuple[Job, ...]  #: waiting and running, in the order of submission; the first ones, where there is a limit
    workers: tuple[Worker, ...]  #: those that live
    broker: health.Broker
    database: str  #: which one, without its password


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything about one job."""

    job: Job
    ahead: int | None  #: queued jobs before it, where it waits
    eta: float | None  #: seconds to the end of the present stage
    ends: forecast.Interval | None  #: seconds to the end of its training, by the epochs that were measured
    needs: tuple[Dependency, ...]  #: what it waits for
    workers: tuple[Worker, ...]  #: those that live
    attempts: tuple[Attempt, ...]
    epochs: tuple[EpochMetric, ...]
    stopped_early: str | None  #: why it ended before its last epoch, where it did
    checkpoints: tuple[Checkpoint, ...]
    evaluation: Evaluation | None
    dataset: Dataset | None


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What `watch` draws, in the order of steps and epochs."""

    losses: tuple[curves.Point, ...]  #: (step, training loss)
    epochs: tuple[EpochMetric, ...]


def overview(settings: config.Settings, store: Store, *, limit: int | None = None) -> Overview:
    """Return the queue and the workers at a glance; what is counted and what is listed agree.

    For a quick look, `limit` jobs are listed at most, and what could begin now is not counted.
    """
    counts = store.counts(eligible=False) if limit else store.counts()
    active = store.jobs(JobFilter(states=ACTIVE, limit=limit, oldest_first=True))
    if limit is None or len(active) < limit:
        found = Counter(job.state for job in active)
        counts = replace(counts, states=counts.states | {state: found[state] for state in ACTIVE})
    return Overview(
        counts=counts,
        active=tuple(active),
        workers=living(store),
        broker=health.broker(settings),
        database=health.database(settings),
    )


def report(store: Store, text: str) -> Report:
    """Return everything about the job that `text` means; raises NotFound, or Ambiguous with the candidates."""
    job = store.find(text)
    epochs = tuple(store.epochs(job.id))
    return Report(
        job=job,
        ahead=store.ahead(job.id) if job.state is JobState.QUEUED else None,
        eta=eta(job),
        ends=ends(job, epochs),
        needs=tuple(store.dependencies(job.id)),
        workers=living(store),
        attempts=tuple(store.attempts(job.id)),
        epochs=epochs,
        stopped_early=stopping.said(job.spec, stopping.watched(job.spec, epochs)),
        checkpoints=tuple(store.checkpoints(job.id)),
        evaluation=store.evaluation(job.id),
        dataset=store.dataset(job.data_hash) if job.data_hash else None,
    )


def recent(store: Store, *, tags: tuple[str, ...] = (), user: str | None = None) -> list[Job]:
    """Return what waits and runs, and the last finished, the newest first."""
    rows = store.jobs(JobFilter(states=ACTIVE, tags=tags, user=user))
    rows += store.jobs(JobFilter(states=tuple(FINAL), tags=tags, user=user, limit=LAST_FINISHED))
    once = {job.id: job for job in rows}  # one that has ended between the two looks is in both
    return sorted(once.values(), key=lambda job: job.seq, reverse=True)


def living(store: Store) -> tuple[Worker, ...]:
    """Return the workers that have neither stopped nor been lost."""
    return tuple(worker for worker in store.workers() if worker.state in LIVING)


def failures(store: Store, worker: Worker) -> str | None:
    """Return in words why an unhealthy worker takes no more jobs, None where it is well."""
    if worker.state is not WorkerState.UNHEALTHY:
        return None
    return streaks.told(streaks.longest(store.ended_attempts(worker.id)))


def silent(worker: Worker, settings: config.Settings) -> bool:
    """Whether a worker that has not said goodbye has not been heard of for a while."""
    return worker.state in LIVING and worker.silence > MISSED_BEATS * settings.heartbeat


def silent_ids(workers: Iterable[Worker], settings: config.Settings) -> frozenset[str]:
    """Return the ids of the silent ones among workers."""
    return frozenset(worker.id for worker in workers if silent(worker, settings))


def standing(worker: Worker, settings: config.Settings) -> str:
    """Return how a worker stands, in a word: its state, which is what it has said last, or that it is silent."""
    return SILENT if silent(worker, settings) else str(worker.state)


def stranded(job: Job, workers: Iterable[Worker], silent: Container[str] = ()) -> bool:
    """Whether a job waits for checkpoints that none of the workers, which are heard of, can read."""
    here = {worker.artifact_root for worker in workers if worker.id not in silent}
    return job.state is JobState.QUEUED and job.artifact_root is not None and job.artifact_root not in here


def takes(job: Job) -> int:
    """Return how many slots of its worker a job takes at its stage; those for downloads are others."""
    return job.demand.at(job.stage).gpus


def unfit(job: Job, workers: Iterable[Worker]) -> dict[str, str]:
    """Return why none of the workers can ever run a job, by their ids; nothing where one can, or there is none."""
    stage = Stage.EVALUATE if job.stage is Stage.EVALUATE else Stage.TRAIN
    reasons = {worker.id: "; ".join(_unfit(job, stage, worker)) for worker in workers}
    return reasons if all(reasons.values()) and job.state is JobState.QUEUED else {}


def _unfit(job: Job, stage: Stage, worker: Worker) -> tuple[str, ...]:
    spent = (SPENT,) if worker.state is WorkerState.SPENT and stage is Stage.TRAIN else ()
    return spent + job.demand.unmet(stage, worker.offer)


def last_host(report: Report) -> str:
    """Return on which host the newest checkpoint was written."""
    hosts = {attempt.attempt: attempt.host for attempt in report.attempts}
    return hosts.get(report.checkpoints[0].attempt, "unknown") if report.checkpoints else "unknown"


def doing(job: Job, silent: Container[str] = ()) -> str:
    """Return what the job is at, in a word: its state, or its stage while it runs, unless its worker is `silent`."""
    if job.state is not JobState.RUNNING:
        return str(job.state)
    if job.worker in silent:
        return SILENT
    return STOPPING.get(job.wish, DOING[job.stage])


def eta(job: Job) -> float | None:
    """Return the seconds to the end of the present stage at its present rate, None where nobody can say.

    While training, `rate` is images a second and `done` counts steps of `step_size` images.
    """
    progress = job.progress
    if job.state is not JobState.RUNNING or not progress.rate or not progress.total:
        return None
    per_unit = job.spec.step_size if job.stage is Stage.TRAIN and progress.unit == "steps" else 1
    return max(0, progress.total - progress.done) * per_unit / progress.rate


def ends(job: Job, epochs: Iterable[EpochMetric]) -> forecast.Interval | None:
    """Return in how many seconds the training of a running job ends, by its epochs; None before the first."""
    closed = list(epochs)
    an_epoch = forecast.an_epoch(closed)
    if job.state is not JobState.RUNNING or job.stage is not Stage.TRAIN or an_epoch is None:
        return None
    return an_epoch * forecast.epochs_left(job, max(metric.epoch for metric in closed))


def blocked(job: Job, needs: Iterable[Dependency], *, now: datetime) -> str | None:
    """Return in words what a queued job waits for before it can be its turn; None where nothing is."""
    unmet = [one.needs for one in needs if not one.met]
    if job.blocked and unmet:
        waits = f"waits for {', '.join(unmet)}"
        if job.start_after is None or job.start_after <= now:
            return waits
        return f"{waits}, and begins no earlier than {_local(job.start_after)}"
    if job.not_before is None or job.not_before <= now:
        return None
    seconds = (job.not_before - now).total_seconds()
    if job.not_before == job.start_after:
        return f"begins at {_local(job.not_before)}"
    return f"tries again in {max(1, round(seconds))} s"


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def checkpoint_file(settings: config.Settings, checkpoint: Checkpoint) -> Path:
    """Return where a checkpoint lies, on a host that has the artifact root."""
    return settings.artifact_dir / checkpoint.path


def useful(job: Job) -> Iterator[str]:
    """Yield the commands that are of use next."""
    match job.state:
        case JobState.PAUSED:
            yield f"orch resume {job.id}"
            yield f"orch cancel {job.id}"
        case JobState.QUEUED | JobState.RUNNING:
            yield f"orch watch {job.id}"
            yield f"orch cancel {job.id}"
        case JobState.SUCCEEDED:
            yield f"orch predict {job.id} IMAGE"
        case JobState.FAILED | JobState.CANCELLED:
            yield f"orch logs {job.id}"
            yield f"orch retry {job.id}"


class CurveReader:
    """Reads a job's curves again and again, and each step once: a long training has many."""

    def __init__(self, store: Store, job_id: str, *, points: int = 200) -> None:
        self._store = store
        self._job_id = job_id
        self._points = points
        self._attempt = -1
        self._steps: list[StepMetric] = []

    def read(self, job: Job) -> Curves:
        """Return the losses, thinned to `points` means of neighbouring steps, and the epochs."""
        if job.attempt != self._attempt:  # it may have gone back to a checkpoint: steps past it do not count
            self._attempt, self._steps = job.attempt, []
        last = self._steps[-1].step if self._steps else 0
        self._steps += self._store.steps(self._job_id, name="loss", after=last)
        return Curves(
            losses=curves.thinned([(step.step, step.value) for step in self._steps], self._points),
            epochs=tuple(self._store.epochs(self._job_id)),
        )
