"""Workers that work in no time: what happens to jobs is played through event by event, and a clock moved by hand."""

import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks import line, queues, workload
from orchestrator.core import jobs, states
from orchestrator.core.states import Stage


@dataclass(kw_only=True)
class _Slot:
    worker: str
    stages: tuple[Stage, ...]
    held: queues.Held | None = None


@dataclass(kw_only=True)
class Run:
    """What happened."""

    stages: list[queues.Held] = field(default_factory=list)  #: in the order of their ends
    submitted: dict[int, float] = field(default_factory=dict)  #: by number, in seconds from the beginning

    def begins(self, number: int, stage: Stage) -> list[float]:
        """Return when a job began a stage, as often as it did."""
        return sorted(held.since for held in self.stages if held.one.plan.number == number and held.stage is stage)

    def wait(self, number: int) -> list[float]:
        """Return how long a job waited for its training to begin: one time, or none where it never did."""
        return [began - self.submitted[number] for began in self.begins(number, Stage.TRAIN)[:1]]

    @property
    def ends(self) -> float:
        """When all was done, in seconds from the beginning."""
        return max(held.until for held in self.stages)

    def used(self, until: float) -> float:
        """Return which share of the devices' time went into trainings and evaluations up to a time."""
        on_device = [held for held in self.stages if held.stage is not Stage.DOWNLOAD]
        busy = sum(max(0.0, min(held.until, until) - held.since) for held in on_device)
        return busy / (until * queues.DEVICES * len(queues.WORKERS))


class Simulation:
    """Works off jobs; `look` is called after each submission, with what is held then."""

    def __init__(
        self,
        queue: queues.Queue,
        clock: queues.Clock,
        look: Callable[[int, Sequence[queues.Held]], None] = lambda _, __: None,
    ) -> None:
        self._queue, self._clock, self._look = queue, clock, look
        self._slots = [
            _Slot(worker=worker, stages=stages)
            for stages, count in (
                ((Stage.DOWNLOAD,), queues.DOWNLOADS),
                ((Stage.EVALUATE, Stage.TRAIN), queues.DEVICES),
            )
            for worker in queues.WORKERS
            for _ in range(count)
        ]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._run = Run()

    def work_off(self, plans: Iterable[workload.Plan]) -> Run:
        """Return what happened until nothing was left to do."""
        for plan in plans:
            self._at(plan.at, lambda plan=plan: self._submit(plan))  # type: ignore[misc] # of this turn of the loop
        while self._events:
            self._clock.seconds, _, act = heapq.heappop(self._events)
            act()
        return self._run

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (workload.moment(seconds).total_seconds(), next(self._number), act))

    def _submit(self, plan: workload.Plan) -> None:
        self._queue.submit(plan)
        self._run.submitted[plan.number] = self._clock.seconds
        self._serve()
        if self._events and self._events[0][0] <= self._clock.seconds:
            return  # the rest of a sweep, or what ends at this very moment
        self._look(plan.number, [slot.held for slot in self._slots if slot.held is not None])

    def _serve(self) -> None:
        """Let every slot that is free claim; of two alike the second one finds nothing either."""
        for kind in {(slot.stages, slot.worker): None for slot in self._slots}:
            for slot in (slot for slot in self._slots if (slot.stages, slot.worker) == kind and slot.held is None):
                found = self._queue.claim(slot.worker, slot.stages)
                if found is None:
                    break
                self._begin(slot, *found)
        self._make_room()

    def _make_room(self) -> None:
        running = {id(slot.held): slot for slot in self._slots if slot.held is not None and not slot.held.yielded}
        for held in self._queue.yielding([slot.held for slot in running.values() if slot.held is not None]):
            held.yielded = True
            self._at(min(held.until, self._clock.seconds + queues.YIELDING), functools.partial(self._yield, held))

    def _yield(self, held: queues.Held) -> None:
        slot = next((slot for slot in self._slots if slot.held is held), None)
        if slot is not None and self._clock.seconds < held.until:
            held.one.done = held.done_by(self._clock.seconds)
            self._end(slot, held)

    def _begin(self, slot: _Slot, one: line.Waiting, claim: jobs.Claim | None) -> None:
        device, now = queues.WORKERS[slot.worker], self._clock.seconds
        seconds = one.plan.seconds(one.stage, device, done=one.done) + (queues.BEGINNING if one.done else 0.0)
        reason: states.Reason | None = None
        if one.plan.fails is states.Reason.BAD_INPUT and one.stage is Stage.DOWNLOAD:
            reason = one.plan.fails
        if one.plan.fails is states.Reason.LOST and one.stage is Stage.TRAIN and not one.lost:
            reason, seconds = one.plan.fails, seconds / 2
        held = slot.held = queues.Held(
            one=one,
            stage=one.stage,
            device=device,
            since=now,
            until=now + seconds,
            reason=reason,
            claim=claim,
            done=one.done,
        )
        if one.stage is Stage.TRAIN:
            self._train(held)
        self._at(now + seconds, lambda: self._done_with(slot, held))

    def _train(self, held: queues.Held) -> None:
        began = held.since + (queues.BEGINNING if held.done else 0.0)
        for epoch, end in enumerate(itertools.accumulate(held.one.plan.epochs), start=1):
            at = began + (end - held.done) * workload.SLOWNESS[held.device]
            if held.done < end and at <= held.until:
                self._at(at, functools.partial(self._close, held, epoch))
        if held.one.plan.spec.preemptible:
            self._at(held.since + queues.STAY.total_seconds(), self._make_room)

    def _close(self, held: queues.Held, epoch: int) -> None:
        if any(slot.held is held for slot in self._slots):
            self._queue.closed(held, epoch)

    def _done_with(self, slot: _Slot, held: queues.Held) -> None:
        if slot.held is held:  # or it has yielded
            held.yielded = False
            self._end(slot, held)

    def _end(self, slot: _Slot, held: queues.Held) -> None:
        slot.held, held.until = None, self._clock.seconds
        self._run.stages.append(held)
        self._queue.finish(held)
        self._serve()
