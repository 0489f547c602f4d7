"""When a job begins and ends, by what was measured of it and of others like it, and by who is before it.

At the soonest no other job is submitted meanwhile, and those that a limit holds back now let others go before. At the
latest all others go first that their users submit meanwhile, as many as they did of late.
"""

import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core import forecast
from orchestrator.core.forecast import Interval
from orchestrator.core.jobs import Job, JobFilter, Worker
from orchestrator.core.limits import Limits
from orchestrator.core.states import JobState, Stage
from orchestrator.service import query, speeds
from orchestrator.service.experience import Experience
from orchestrator.store.base import Store

#: More jobs ahead than this are counted and not reckoned with: nobody can say when they have ended.
FORESEEN = 50

#: Jobs that are looked through for those that wait.
WAITING = 100

#: The largest share of the slots that later jobs of others are reckoned to take.
MOST_TAKEN = 0.75

#: Stages in their order.
_STAGES = (Stage.DOWNLOAD, Stage.TRAIN, Stage.EVALUATE)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What takes a job: slots with a device train and evaluate, the others download."""

    workers: frozenset[str]
    devices: int
    downloads: int
    limits: tuple[Limits, ...] = ()  #: that the workers keep to


def slots(workers: Sequence[Worker], *, downloads: int) -> Slots:
    """Return the slots of workers, each of which has so many for downloads."""
    return Slots(
        workers=frozenset(worker.id for worker in workers),
        devices=sum(len(worker.devices) for worker in workers),
        downloads=downloads * len(workers),
        limits=tuple({str(worker.limits): worker.limits for worker in workers}.values()),
    )


class Forecast:
    """What the store says at one moment; asked for several jobs, it reads no experience twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now = store.time()
        self._experience = Experience(store)
        self._place: speeds.Place | None = None
        self._known: dict[tuple[object, ...], list[float]] = {}  #: seconds, by what they are of

    def begins(self, job: Job, before: dict[str, int], taken_by: Slots) -> Interval | None:
        """Return in how many seconds a waiting job begins its stage; None where anything before it is unknown.

        `before` is how many jobs of each user are claimed first.
        """
        if job.state is not JobState.QUEUED or job.blocked or sum(before.values()) > FORESEEN:
            return None
        ahead = [one for user, count in before.items() for one in self._store.first(user, job.stage, limit=count)]
        if job.stage is Stage.DOWNLOAD:
            running = self._running(taken_by, Stage.DOWNLOAD)
            return self._turn(job, running, (ahead, ahead), self._present, count=taken_by.downloads)
        running = self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)
        if job.stage is Stage.EVALUATE:  # it goes before what waits to train
            return self._turn(job, running, (ahead, ahead), self._present, count=taken_by.devices)
        free = self._free_of_limits(ahead, taken_by)
        return self._turn(job, running, (free, ahead), self._left, count=taken_by.devices)

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
        waiting = self._store.jobs(JobFilter(states=(JobState.QUEUED,), limit=WAITING))
        coming = [*waiting, *self._store.running(Stage.DOWNLOAD)]
        others = [one for one in coming if one.id != job.id and one.stage is not Stage.EVALUATE and not one.blocked]
        if len(waiting) == WAITING or len(others) > FORESEEN:
            return None
        running = self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)
        return self._turn(job, running, ([], others), self._left_on_device, count=taken_by.devices)

    def _turn(
        self,
        job: Job,
        running: Sequence[Job],
        ahead: tuple[Sequence[Job], Sequence[Job]],
        left: Callable[[Job], Interval | None],
        *,
        count: int,
    ) -> Interval | None:
        """Return when one of `count` slots is free for a job, behind those that are ahead of it at least and at most.

        `left` says how long each of these has to work.
        """
        (fewest, most), busy = ahead, [left(one) for one in running]
        first, last = _free(busy, map(left, fewest), count), _free(busy, map(left, most), count)
        if first is None or last is None:
            return None
        usual = [(one.low + one.high) / 2 for one in map(left, (job, *most)) if one is not None]
        taken = self._submitted_by_others(job) * statistics.fmean(usual) / count if usual else 0.0
        return Interval(low=first.low, high=last.high / (1 - min(MOST_TAKEN, taken)))

    def _submitted_by_others(self, job: Job) -> float:
        """Return how many jobs other users submit in a second, as they did of late."""
        seen = self._experience.jobs()
        window = (self._now - min((one.submitted_at for one in seen), default=self._now)).total_seconds()
        return sum(one.user != job.user for one in seen) / window if window > 0 else 0.0

    def _free_of_limits(self, some: Iterable[Job], taken_by: Slots) -> list[Job]:
        """Return the jobs whose tags are at no limit now."""
        tags = [one.tags for one in self._store.running(Stage.TRAIN)]
        full = {tag for limits in taken_by.limits for tag in limits.full_tags(tags)}
        return [one for one in some if not full & set(one.tags)]

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
            an_epoch = forecast.spread(self._epoch(job)) or self._by_speed(job, stage)
            closed = max((metric.epoch for metric in self._experience.epochs(job.id)), default=0)
            return an_epoch * forecast.epochs_left(job, closed) if an_epoch else None
        whole = forecast.spread(self._took(job, stage))
        if whole is None and stage is Stage.EVALUATE:
            whole = self._by_speed(job, stage)
        if whole is None or job.state is not JobState.RUNNING or job.stage is not stage:
            return whole
        began = self._experience.attempts(job.id)[-1].started_at
        return whole.after((self._now - began).total_seconds())

    def _epoch(self, job: Job) -> list[float]:
        """Return what epochs of the job took, and those of others like it where there are few."""
        epochs = self._experience.epochs
        own = forecast.epoch_seconds(epochs(job.id))
        if len(own) >= forecast.ENOUGH:
            return own
        return own + self._once(job, Stage.TRAIN, lambda one: forecast.epoch_seconds(epochs(one.id)))

    def _by_speed(self, job: Job, stage: Stage) -> Interval | None:
        """Return what an epoch or an evaluation takes by the speed of other recipes; None without a number of pictures.

        What orch's own table says is no forecast: some job must have measured it.
        """
        if self._place is None:
            self._place = speeds.place(query.living(self._store))
        dataset = self._store.dataset(job.data_hash) if job.data_hash else None
        counts = dataset.counts if dataset else self._experience.counts(job.spec.data)
        foreseen = speeds.foresee(job.spec, self._experience, self._place, counts=counts) if counts else None
        if counts is None or foreseen is None or foreseen.rate.basis.job is None:
            return None
        if stage is Stage.EVALUATE:
            return foreseen.rate.val * counts["val"]
        return foreseen.plan.total * (1 / job.spec.epochs)

    def _took(self, job: Job, stage: Stage) -> list[float]:
        """Return what a download of the same data, or an evaluation of such a network, took before.

        An evaluation takes as long as the validation of an epoch, where there was none yet.
        """
        took = self._once(job, stage, lambda one: self._done(one, stage))
        if took or stage is not Stage.EVALUATE:
            return took
        own = self._validations(job)
        return own or self._once(job, Stage.TRAIN, self._validations, of="val")

    def _once(self, job: Job, stage: Stage, seconds: Callable[[Job], Iterable[float]], *, of: str = "") -> list[float]:
        """Return what is known of other jobs that take equally long at a stage; it is read for the first of them."""
        key = (of, stage, *_likeness(job, stage))
        if key not in self._known:
            self._known[key] = [one for other in self._alike(job, stage) for one in seconds(other)]
        return self._known[key]

    def _alike(self, job: Job, stage: Stage) -> list[Job]:
        wanted = _likeness(job, stage)
        found = (one for one in self._experience.jobs() if one.id != job.id and _likeness(one, stage) == wanted)
        return list(itertools.islice(found, forecast.RECENT))

    def _done(self, job: Job, stage: Stage) -> Iterator[float]:
        for attempt in self._experience.attempts(job.id):
            if attempt.stage is stage and attempt.outcome == "done" and attempt.ended_at is not None:
                yield (attempt.ended_at - attempt.started_at).total_seconds()

    def _validations(self, job: Job) -> list[float]:
        return [metric.seconds for metric in self._experience.epochs(job.id) if metric.split == "val"]


def _likeness(job: Job, stage: Stage) -> tuple[object, ...]:
    """Return what jobs have in common that take equally long at a stage."""
    return (job.spec.data,) if stage is Stage.DOWNLOAD else forecast.likeness(job)


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
