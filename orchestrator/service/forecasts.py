"""When a job begins and ends, by what was measured of it and of others like it, and by who is before it.

Nothing is known of jobs that are still to be submitted: each that comes before it makes it later.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core import forecast
from orchestrator.core.forecast import Interval
from orchestrator.core.jobs import Job, JobFilter, Worker
from orchestrator.core.states import JobState, Stage
from orchestrator.store.base import Store

#: More jobs ahead than this are counted and not reckoned with: nobody can say when they have ended.
FORESEEN = 50

#: Jobs that are looked through for those that take equally long, and for those that wait.
EXPERIENCE = 100

#: Stages in their order.
_STAGES = (Stage.DOWNLOAD, Stage.TRAIN, Stage.EVALUATE)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What takes a job: slots with a device train and evaluate, the others download."""

    workers: frozenset[str]
    devices: int
    downloads: int


def slots(workers: Sequence[Worker], *, downloads: int) -> Slots:
    """Return the slots of workers, each of which has so many for downloads."""
    return Slots(
        workers=frozenset(worker.id for worker in workers),
        devices=sum(len(worker.devices) for worker in workers),
        downloads=downloads * len(workers),
    )


class Forecast:
    """What the store says at one moment; asked for several jobs, it reads no experience twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now = store.time()
        self._seen: list[Job] | None = None
        self._known: dict[tuple[object, ...], list[float]] = {}

    def begins(self, job: Job, before: dict[str, int], taken_by: Slots) -> Interval | None:
        """Return in how many seconds a waiting job begins its stage; None where anything before it is unknown.

        `before` is how many jobs of each user are claimed first.
        """
        if job.state is not JobState.QUEUED or job.blocked or sum(before.values()) > FORESEEN:
            return None
        ahead = [one for user, count in before.items() for one in self._store.first(user, job.stage, limit=count)]
        if job.stage is Stage.DOWNLOAD:
            running = self._running(taken_by, Stage.DOWNLOAD)
            return _free(map(self._present, running), map(self._present, ahead), taken_by.downloads)
        running = self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)
        # What waits to be evaluated goes before what waits to train.
        taking = self._present if job.stage is Stage.EVALUATE else self._left
        return _free(map(taking, running), map(taking, ahead), taken_by.devices)

    def ends(self, job: Job, begins: Interval | None, taken_by: Slots) -> Interval | None:
        """Return in how many seconds a job ends that runs, or whose stage begins as foreseen; None where unknown."""
        if job.state is JobState.RUNNING:
            begins = forecast.NOTHING
        if begins is None or job.final:
            return None
        if job.stage is not Stage.DOWNLOAD:
            return _together(begins, self._left(job))
        here = _together(begins, self._stage(job, Stage.DOWNLOAD))
        device = self._device(job, taken_by)
        if here is None or device is None:
            return None
        return _together(here.with_(device), self._left_on_device(job))

    def _device(self, job: Job, taken_by: Slots) -> Interval | None:
        """Return when a device is free for a job that still downloads: before all others that wait, or behind them."""
        waiting = self._store.jobs(JobFilter(states=(JobState.QUEUED,), limit=EXPERIENCE))
        coming = [*waiting, *self._store.running(Stage.DOWNLOAD)]
        others = [one for one in coming if one.id != job.id and one.stage is not Stage.EVALUATE and not one.blocked]
        if len(waiting) == EXPERIENCE or len(others) > FORESEEN:
            return None
        busy = [self._left(one) for one in self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)]
        first, last = (
            _free(busy, [], taken_by.devices),
            _free(busy, map(self._left_on_device, others), taken_by.devices),
        )
        return Interval(low=first.low, high=last.high) if first and last else None

    def _running(self, taken_by: Slots, *stages: Stage) -> list[Job]:
        found = (job for stage in stages for job in self._store.running(stage))
        return [job for job in found if job.worker in taken_by.workers]

    def _left(self, job: Job) -> Interval | None:
        """Return how long a job has still to work, at all its stages."""
        return _together(*(self._stage(job, stage) for stage in _STAGES[_STAGES.index(job.stage) :]))

    def _left_on_device(self, job: Job) -> Interval | None:
        return _together(*(self._stage(job, stage) for stage in _STAGES[max(1, _STAGES.index(job.stage)) :]))

    def _present(self, job: Job) -> Interval | None:
        return self._stage(job, job.stage)

    def _stage(self, job: Job, stage: Stage) -> Interval | None:
        if stage is Stage.TRAIN:
            an_epoch = forecast.spread(self._epochs(job))
            closed = max((metric.epoch for metric in self._store.epochs(job.id)), default=0)
            return an_epoch * forecast.epochs_left(job, closed) if an_epoch else None
        whole = forecast.spread(self._took(job, stage))
        if whole is None or job.state is not JobState.RUNNING or job.stage is not stage:
            return whole
        began = self._store.attempts(job.id)[-1].started_at
        return whole.after((self._now - began).total_seconds())

    def _epochs(self, job: Job) -> list[float]:
        """Return what epochs of the job took, and those of others like it where there are few."""
        own = forecast.epoch_seconds(self._store.epochs(job.id))
        if len(own) >= forecast.ENOUGH:
            return own
        key = (Stage.TRAIN, *forecast.likeness(job))
        if key not in self._known:
            epochs = (forecast.epoch_seconds(self._store.epochs(one.id)) for one in self._alike(job, Stage.TRAIN))
            self._known[key] = [seconds for one in epochs for seconds in one]
        return own + self._known[key]

    def _took(self, job: Job, stage: Stage) -> list[float]:
        """Return what a download of the same data, or an evaluation of such a network, took before.

        An evaluation takes as long as the validation of an epoch, where there was none yet.
        """
        key = (stage, *(forecast.likeness(job) if stage is Stage.EVALUATE else (job.spec.data,)))
        if key not in self._known:
            self._known[key] = [seconds for one in self._alike(job, stage) for seconds in self._done(one, stage)]
        if self._known[key] or stage is not Stage.EVALUATE:
            return self._known[key]
        like = [job, *self._alike(job, Stage.TRAIN)]
        return [metric.seconds for one in like for metric in self._store.epochs(one.id) if metric.split == "val"]

    def _done(self, job: Job, stage: Stage) -> Iterator[float]:
        for attempt in self._store.attempts(job.id):
            if attempt.stage is stage and attempt.outcome == "done" and attempt.ended_at is not None:
                yield (attempt.ended_at - attempt.started_at).total_seconds()

    def _alike(self, job: Job, stage: Stage) -> list[Job]:
        """Return other jobs that take equally long at a stage, the newest first."""
        if self._seen is None:
            states = (JobState.SUCCEEDED, JobState.RUNNING)
            self._seen = self._store.jobs(JobFilter(states=states, limit=EXPERIENCE))
        wanted = job.spec.data if stage is Stage.DOWNLOAD else forecast.likeness(job)
        found = [
            one
            for one in self._seen
            if one.id != job.id and (one.spec.data if stage is Stage.DOWNLOAD else forecast.likeness(one)) == wanted
        ]
        return found[: forecast.RECENT]


def _free(busy: Iterable[Interval | None], ahead: Iterable[Interval | None], count: int) -> Interval | None:
    """Return when a slot is free for the one behind `ahead`; None where one of them is unknown."""
    running, waiting = list(busy), list(ahead)
    known = [one for one in (*running, *waiting) if one is not None]
    if len(known) < len(running) + len(waiting):
        return None
    return forecast.begin(known[: len(running)], known[len(running) :], slots=count)


def _together(*parts: Interval | None) -> Interval | None:
    """Return how long all take, one after the other; None where one of them is unknown."""
    whole = forecast.NOTHING
    for part in parts:
        if part is None:
            return None
        whole += part
    return whole
