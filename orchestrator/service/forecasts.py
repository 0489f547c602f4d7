"""When a job begins and ends, by what was measured of it and of others like it, and by who is before it.

At the soonest no other job is submitted meanwhile, those that a limit holds back now let others go before, and an
urgent job gets room. At the latest all others go first that their users submit meanwhile, as many as they did of late.
In between `core.lookahead` plays the order of claims forward.
"""

import functools
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from orchestrator.core import forecast, lookahead, ordering
from orchestrator.core.forecast import Interval
from orchestrator.core.jobs import Attempt, EpochMetric, Job, JobFilter
from orchestrator.core.states import JobState, Stage
from orchestrator.service import query, speeds, takers
from orchestrator.service.experience import Experience
from orchestrator.store.base import Store

#: More jobs ahead than this are counted and not reckoned with: nobody can say when they have ended.
FORESEEN = 50

#: Jobs that are looked through for those that wait.
WAITING = 100

#: Jobs of each other user that are reckoned with beyond those that are ahead now: turns change as trainings end.
ALSO = 10

#: How long a job works, where that is known, and in how many slots.
_Work = tuple[Interval | None, int]

#: Stages in their order.
_STAGES = (Stage.DOWNLOAD, Stage.TRAIN, Stage.EVALUATE)


#: Until a training that has been asked to yield has its checkpoint: a step, and the writing.
YIELDING = Interval(low=0, high=60)


class Forecast:
    """What the store says at one moment; asked for several jobs, it reads no experience twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now = store.time()
        self._experience = Experience(store)
        self._place: speeds.Place | None = None
        self._known: dict[tuple[object, ...], list[float]] = {}  #: seconds, by what they are of

    def begins(self, job: Job, standing: ordering.Standing, taken_by: takers.Slots) -> Interval | None:
        """Return in how many seconds a waiting job begins its stage; None where anything before it is unknown."""
        if job.state is not JobState.QUEUED or job.blocked or standing.ahead > FORESEEN or not taken_by.takers:
            return None
        if job.stage is Stage.TRAIN:
            return self._claimed(job, standing, taken_by)
        before = standing.before.items()
        ahead = [one for user, count in before for one in self._store.first(user, job.stage, limit=count)]
        if job.stage is Stage.DOWNLOAD:
            running = self._running(taken_by, Stage.DOWNLOAD)
            return self._turn(job, running, (ahead, ahead), self._present, count=taken_by.downloads)
        running = self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)  # it goes before what waits to train
        return self._turn(job, running, (ahead, ahead), self._present, count=taken_by.devices)

    def ends(self, job: Job, begins: Interval | None, taken_by: takers.Slots) -> Interval | None:
        """Return in how many seconds a job ends that runs, or whose stage begins as foreseen; None where unknown."""
        if job.state is JobState.RUNNING:
            begins = forecast.NOTHING
        if begins is None or job.final:
            return None
        if job.stage is not Stage.DOWNLOAD:
            return _together(begins, self._left_somewhere(job, taken_by))
        here = _together(begins, self._stage(job, Stage.DOWNLOAD))
        device = self._device(job, taken_by)
        if here is None or device is None:
            return None
        return _together(here.with_(device), self._left_somewhere(job, taken_by, download=False))

    def _claimed(self, job: Job, standing: ordering.Standing, taken_by: takers.Slots) -> Interval | None:
        """Return when a training begins: the order of claims is played forward, with all that takes long or short."""
        turns = {one.user: one for one in standing.turns}
        limits = {user: standing.before.get(user, 0) + (0 if user == job.user else ALSO) for user in turns}
        ahead = [one for user, most in limits.items() if most for one in self._first(job, user, limit=most)]
        all_of_them = [*ahead, *self._coming()]
        played = [
            self._play(job, ahead=some, turns=turns, taken_by=taken_by, share=share)
            for some, share in (
                (self._free_of_limits(ahead, taken_by), 0.0),
                (all_of_them, 0.0),
                (all_of_them, 0.5),
                (all_of_them, 1.0),
            )
        ]
        known = [seconds for seconds in played if seconds is not None]
        if len(known) < len(played):
            return None
        low = 0.0 if self._may_make_room(job, taken_by) else min(known)
        return Interval(low=low, high=self._with_others(job, max(known), ahead, taken_by))

    def _coming(self) -> list[Job]:
        """Return the jobs that download, and will wait for a device as well."""
        return self._store.running(Stage.DOWNLOAD)[:FORESEEN]

    def _first(self, job: Job, user: str, *, limit: int) -> list[Job]:
        return [one for one in self._store.first(user, job.stage, limit=limit) if one.id != job.id]

    def _play(
        self,
        job: Job,
        *,
        ahead: Sequence[Job],
        turns: Mapping[str, ordering.Contender],
        taken_by: takers.Slots,
        share: float,
    ) -> float | None:
        """Return when a training is claimed, where each takes its shortest time and a `share` of its doubt."""
        busy = self._busy(taken_by, share)
        kinds = {device.name for worker in taken_by.workers for device in worker.offer.devices}
        takes = {one.id: {kind: self._left(one, kind=kind, download=False) for kind in kinds} for one in ahead}
        comes = {one.id: self._stage(one, Stage.DOWNLOAD) for one in ahead if one.stage is Stage.DOWNLOAD}
        unknown = [*comes.values(), *(whole for of_job in takes.values() for whole in of_job.values())]
        if busy is None or None in unknown:
            return None
        waiting = [
            lookahead.Waiting(
                user=one.user,
                rank=ordering.rank(submitted_at=one.submitted_at, priority=one.priority),
                seq=one.seq,
                demand=one.demand,
                seconds={kind: whole.at(share) for kind, whole in takes.get(one.id, {}).items() if whole},
                comes=until.at(share) if (until := comes.get(one.id)) else 0.0,
            )
            for one in (*ahead, job)
        ]
        return lookahead.begins(busy, waiting, job.seq, turns)

    def _busy(self, taken_by: takers.Slots, share: float) -> list[lookahead.Slot] | None:
        """Return all slots that train, with the time until each is free; None where that is unknown of one."""
        running = [*self._store.running(Stage.TRAIN), *self._store.running(Stage.EVALUATE)]
        found: list[lookahead.Slot] = []
        for worker in taken_by.workers:
            free = list(worker.offer.devices)
            slot = functools.partial(lookahead.Slot, worker=worker.id, offer=worker.offer)
            for one in (one for one in running if one.worker == worker.id):
                left = YIELDING if one.yields_to else self._left(one)
                if left is None:
                    return None
                for _ in range(min(len(free), one.demand.at(one.stage).gpus)):
                    device = next((device for device in free if device.name == self._kind(one)), free[0])
                    free.remove(device)
                    user = one.user if one.stage is Stage.TRAIN else None
                    found.append(slot(device=device, free=left.at(share), user=user))
            found += [slot(device=device, free=0.0) for device in free]
        return found

    def _may_make_room(self, job: Job, taken_by: takers.Slots) -> bool:
        """Whether a training runs that yields to such a job, as soon as it has stayed for long enough."""
        running = self._running(taken_by, Stage.TRAIN)
        return any(one.spec.preemptible and one.priority < job.priority for one in running)

    def _device(self, job: Job, taken_by: takers.Slots) -> Interval | None:
        """Return when a device is free for a job that still downloads: before all others that wait, or behind them."""
        waiting = self._store.jobs(JobFilter(states=(JobState.QUEUED,), limit=WAITING))
        coming = [*waiting, *self._store.running(Stage.DOWNLOAD)]
        others = [one for one in coming if one.id != job.id and one.stage is not Stage.EVALUATE and not one.blocked]
        others = [one for one in others if any(not one.demand.unmet(Stage.TRAIN, w.offer) for w in taken_by.takers)]
        if len(waiting) == WAITING or len(others) > FORESEEN:
            return None
        running = self._running(taken_by, Stage.TRAIN, Stage.EVALUATE)
        left = functools.partial(self._left_somewhere, taken_by=taken_by, download=False)
        return self._turn(job, running, ([], others), left, count=taken_by.devices)

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
        fewest, most, busy = ([(left(one), query.takes(one)) for one in some] for some in (*ahead, running))
        wanted = query.takes(job)
        first, last = (_free(busy, before, count, wanted) for before in (fewest, most))
        if first is None or last is None:
            return None
        usual = [(one.low + one.high) / 2 for one in (left(job), *(time for time, _ in most)) if one is not None]
        return Interval(low=first.low, high=self._later(job, last.high, usual, count))

    def _with_others(self, job: Job, seconds: float, ahead: Sequence[Job], taken_by: takers.Slots) -> float:
        whole = (self._left_somewhere(one, taken_by) for one in (job, *ahead))
        usual = [one.at(0.5) for one in whole if one is not None]
        return self._later(job, seconds, usual, taken_by.devices)

    def _later(self, job: Job, seconds: float, usual: Sequence[float], count: int) -> float:
        """Return when what would begin after some time does so behind all that others submit meanwhile."""
        each = statistics.fmean(usual) / count if usual else 0.0
        return forecast.behind_others(seconds, rate=self._submitted_by_others(job), each=each)

    def _submitted_by_others(self, job: Job) -> float:
        """Return how many jobs other users submit in a second, as they did of late."""
        seen = self._experience.jobs()
        window = (self._now - min((one.submitted_at for one in seen), default=self._now)).total_seconds()
        return sum(one.user != job.user for one in seen) / window if window > 0 else 0.0

    def _free_of_limits(self, some: Iterable[Job], taken_by: takers.Slots) -> list[Job]:
        """Return the jobs whose tags are at no limit now."""
        tags = [one.tags for one in self._store.running(Stage.TRAIN)]
        full = {tag for limits in taken_by.limits for tag in limits.full_tags(tags)}
        return [one for one in some if not full & set(one.tags)]

    def _running(self, taken_by: takers.Slots, *stages: Stage) -> list[Job]:
        found = (job for stage in stages for job in self._store.running(stage))
        return [job for job in found if job.worker in taken_by.ids]

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """What devices are called, by the labels under which attempts know them."""
        workers = self._store.workers()
        return {label: one.name for w in workers for label, one in zip(w.devices, w.offer.devices, strict=False)}

    def _kind(self, job: Job) -> str:
        """Return what the device is called that a job has now."""
        label = self._experience.attempts(job.id)[-1].device
        return self._names.get(label, label)

    def _left_somewhere(self, job: Job, taken_by: takers.Slots, *, download: bool = True) -> Interval | None:
        """Return how long a job has still to work: on its device, or on whichever it gets."""
        kinds = [None] if job.state is JobState.RUNNING else sorted(taken_by.kinds)
        whole = [self._left(job, kind=kind, download=download) for kind in kinds]
        known = [one for one in whole if one is not None]
        if not known or len(known) < len(whole):
            return None
        return Interval(low=min(one.low for one in known), high=max(one.high for one in known))

    def _left(self, job: Job, *, kind: str | None = None, download: bool = True) -> Interval | None:
        """Return how long a job has still to work, at all its stages, on a device of a kind."""
        if kind is None and job.state is JobState.RUNNING and job.stage is not Stage.DOWNLOAD:
            kind = self._kind(job)
        first = _STAGES.index(job.stage)
        stages = _STAGES[first if download else max(1, first) :]
        return _together(*(self._stage(job, stage, kind) for stage in stages))

    def _present(self, job: Job) -> Interval | None:
        return self._stage(job, job.stage)

    def _stage(self, job: Job, stage: Stage, kind: str | None = None) -> Interval | None:
        if stage is Stage.TRAIN:
            an_epoch = forecast.spread(self._epoch(job, kind)) or self._by_speed(job, stage)
            closed = max((metric.epoch for metric in self._own_epochs(job)), default=0)
            return an_epoch * forecast.epochs_left(job, closed) if an_epoch else None
        whole = forecast.spread(self._took(job, stage, kind))
        if whole is None and stage is Stage.EVALUATE:
            whole = self._by_speed(job, stage)
        if whole is None or job.state is not JobState.RUNNING or job.stage is not stage:
            return whole
        began = self._experience.attempts(job.id)[-1].started_at
        return whole.after((self._now - began).total_seconds())

    def _own_epochs(self, job: Job) -> list[EpochMetric]:
        return self._experience.epochs(job.id) if job.attempt > 1 else []  # it has not trained yet

    def _epochs_on(self, job: Job, kind: str | None) -> list[EpochMetric]:
        """Return the epochs that a job trained on a device of a kind, or on any."""
        rows = self._own_epochs(job)
        if kind is None or not rows:
            return rows
        there = {one.attempt for one in self._experience.attempts(job.id) if self._is_on(one, kind)}
        return [row for row in rows if row.attempt in there]

    def _is_on(self, attempt: Attempt, kind: str) -> bool:
        return self._names.get(attempt.device, attempt.device) == kind

    def _epoch(self, job: Job, kind: str | None) -> list[float]:
        """Return what epochs of the job took on such a device, and those of others like it where there are few.

        Where nothing was measured on such a one, all kinds count.
        """
        own = forecast.epoch_seconds(self._epochs_on(job, kind))
        if len(own) >= forecast.ENOUGH:
            return own
        others = self._once(job, Stage.TRAIN, lambda one: forecast.epoch_seconds(self._epochs_on(one, kind)), kind=kind)
        return [*own, *others] or ([] if kind is None else self._epoch(job, None))

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

    def _took(self, job: Job, stage: Stage, kind: str | None = None) -> list[float]:
        """Return what a download of the same data, or an evaluation of such a network, took before.

        An evaluation takes as long as the validation of an epoch, where there was none yet. Where nothing was measured
        on such a device, all kinds count.
        """
        took = self._once(job, stage, lambda one: self._done(one, stage, kind), kind=kind)
        if not took and stage is Stage.EVALUATE:
            own = self._validations(job, kind)
            took = own or self._once(job, Stage.TRAIN, lambda one: self._validations(one, kind), of="val", kind=kind)
        return took or ([] if kind is None else self._took(job, stage))

    def _once(
        self,
        job: Job,
        stage: Stage,
        seconds: Callable[[Job], Iterable[float]],
        *,
        of: str = "",
        kind: str | None = None,
    ) -> list[float]:
        """Return what is known of other jobs that take equally long at a stage; it is read for the first of them."""
        key = (of, kind, stage, *_likeness(job, stage))
        if key not in self._known:
            self._known[key] = [one for other in self._alike(job, stage) for one in seconds(other)]
        return self._known[key]

    def _alike(self, job: Job, stage: Stage) -> list[Job]:
        wanted = _likeness(job, stage)
        found = (one for one in self._experience.jobs() if one.id != job.id and _likeness(one, stage) == wanted)
        return list(itertools.islice(found, forecast.RECENT))

    def _done(self, job: Job, stage: Stage, kind: str | None) -> Iterator[float]:
        for attempt in self._experience.attempts(job.id):
            if attempt.stage is not stage or attempt.outcome != "done" or attempt.ended_at is None:
                continue
            if stage is Stage.DOWNLOAD or kind is None or self._is_on(attempt, kind):
                yield (attempt.ended_at - attempt.started_at).total_seconds()

    def _validations(self, job: Job, kind: str | None) -> list[float]:
        return [metric.seconds for metric in self._epochs_on(job, kind) if metric.split == "val"]


def _likeness(job: Job, stage: Stage) -> tuple[object, ...]:
    """Return what jobs have in common that take equally long at a stage."""
    return (job.spec.data,) if stage is Stage.DOWNLOAD else forecast.likeness(job)


def _free(busy: Sequence[_Work], ahead: Sequence[_Work], count: int, wanted: int) -> Interval | None:
    """Return when so many slots are free for the one behind `ahead`; None where one of them is unknown."""
    known = [(time, slots) for time, slots in (*busy, *ahead) if time is not None]
    if len(known) < len(busy) + len(ahead):
        return None
    return forecast.begin(known[: len(busy)], known[len(busy) :], slots=count, wanted=wanted)


def _together(*parts: Interval | None) -> Interval | None:
    """Return how long all take, one after the other; None where one of them is unknown."""
    whole = forecast.NOTHING
    for part in parts:
        if part is None:
            return None
        whole += part
    return whole
