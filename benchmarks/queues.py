"""The queues that simulated workers work off, and what they hold of them: one in memory, and orch's own."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from benchmarks import line, workload
from orchestrator.core import dependencies, gangs, jobs, resources, states
from orchestrator.core.states import Stage
from orchestrator.store import sql

#: Workers, and what their devices are.
WORKERS = {"worker-a": workload.A100, "worker-b": workload.RTX, "worker-c": workload.CPU}
DEVICES, DOWNLOADS = 2, 2  # slots of each worker

#: Preemptible trainings run at least so long; a yield takes a step and a checkpoint, and to begin again some seconds.
STAY, YIELDING, BEGINNING = timedelta(minutes=5), 2.0, 5.0

_BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)
_MEMORY = {workload.A100: 80 * 10**9, workload.RTX: 24 * 10**9}


def _offer(worker: str) -> resources.Offer:
    name = WORKERS[worker]
    kind = resources.CPU if name == workload.CPU else resources.GPU
    return resources.Offer(
        devices=tuple(
            resources.Device(id=f"{name} {number}", kind=kind, name=name, memory=_MEMORY.get(name))
            for number in range(DEVICES)
        )
    )


OFFERS = {worker: _offer(worker) for worker in WORKERS}


class Clock:
    """A clock that stands still between two events."""

    def __init__(self) -> None:
        self.seconds = 0.0  #: from the beginning

    def now(self) -> datetime:
        """Return the wall time."""
        return _BEGIN + workload.moment(self.seconds)

    def monotonic(self) -> float:
        """Return seconds from the beginning."""
        return self.seconds


@dataclass(kw_only=True)
class Held:
    """A job in a slot, since when and for how long."""

    one: line.Waiting
    stage: Stage
    device: str
    since: float
    until: float
    reason: states.Reason | None  #: why it ends, None: it is done
    claim: jobs.Claim | None = None  #: in a store
    yielded: bool = False  #: whether it made room for an urgent job
    done: float = 0.0  #: of its training, when it began here

    @property
    def left(self) -> float:
        """What is to do of its training, as the plan has it."""
        return sum(self.one.plan.epochs) - self.done

    def done_by(self, now: float) -> float:
        """Return how much of its training is done then, as the plan has it."""
        trained = now - self.since - (BEGINNING if self.done else 0.0)
        return min(sum(self.one.plan.epochs), self.done + max(0.0, trained) / workload.SLOWNESS[self.device])


class Queue(Protocol):
    """What simulated workers work off."""

    def submit(self, plan: workload.Plan) -> None:
        """Take a job."""
        ...

    def claim(self, worker: str, stages: Sequence[Stage]) -> tuple[line.Waiting, jobs.Claim | None] | None:
        """Give the next job."""
        ...

    def closed(self, held: Held, epoch: int) -> None:
        """Hear of an epoch that has closed."""
        ...

    def finish(self, held: Held) -> None:
        """Hear how a stage has ended."""
        ...

    def yielding(self, running: Sequence[Held]) -> list[Held]:
        """Return which of the trainings that run are asked to make room now."""
        ...


class InMemory:
    """A queue that is only a line."""

    def __init__(self, policy: line.Policy, clock: Clock) -> None:
        self.line = line.Line(policy)
        self._clock = clock

    def submit(self, plan: workload.Plan) -> None:
        """Take a job."""
        self.line.submit(plan, self._clock.now())

    def claim(self, worker: str, stages: Sequence[Stage]) -> tuple[line.Waiting, None] | None:
        """Give the next job."""
        taken = self.line.claim(stages, OFFERS[worker], self._clock.now())
        return None if taken is None else (taken, None)

    def yielding(self, _: Sequence[Held]) -> list[Held]:
        """Nobody yields."""
        return []

    def closed(self, held: Held, epoch: int) -> None:
        """Nobody asks for it."""

    def finish(self, held: Held) -> None:
        """Hear how a stage has ended."""
        self.line.finish(held.one, held.reason)


class InStore:
    """orch's own queue: the store with its claim, and beside it the rule in memory, which it has to agree with."""

    def __init__(self, store: sql.SqlStore, clock: Clock) -> None:
        self.store = store
        self.line = line.Line(self._watched)
        self.patience = line.Patience()
        self.ids: dict[int, str] = {}  #: of jobs, by number
        self.room: dict[str, str] = {}  #: jobs for which a training of a worker has just made room
        self.wrong_room: list[str] = []  #: rooms that another one took
        self.too_late = 0  #: rooms that nobody needed any more when they were made
        self._clock = clock
        for name in WORKERS:
            store.register(_worker(name, clock.now()))

    def submit(self, plan: workload.Plan) -> None:
        """Take a job."""
        after = (
            () if plan.after is None else (dependencies.Dependency(needs=self.ids[plan.after], rule=states.After.OK),)
        )
        new = jobs.NewJob(spec=plan.spec, user=plan.user, priority=plan.priority, demand=plan.demand, after=after)
        self.ids[plan.number] = self.store.submit(new)[0].id
        self.line.submit(plan, self._clock.now())

    def claim(self, worker: str, stages: Sequence[Stage]) -> tuple[line.Waiting, jobs.Claim | None] | None:
        """Give the next job of the store, and note where the rule says another one."""
        held = self.store.claim(
            worker=_identity(worker),
            device=WORKERS[worker],
            stages=stages,
            artifact_root="root",
            pool=gangs.Alone(OFFERS[worker]),
        )
        taken = self.line.claim(stages, OFFERS[worker], self._clock.now())
        wanted = None if taken is None else self.ids[taken.plan.number]
        found = None if held is None else held.id
        if wanted != found:
            at = f"after {self._clock.seconds:.0f} s {found} was claimed"
            raise RuntimeError(f"The order is broken: {at}, and {wanted} is next.")
        if held is None or taken is None:
            return None
        if held.job.stage is Stage.TRAIN:
            self.store.record_resumed(held, attempt=taken.trained_in, step=_steps(taken.plan, taken.done))
            urgent = self.room.pop(worker, held.id)
            if urgent != held.id:
                self.wrong_room.append(f"{urgent} was to be next on {worker}, {held.id} was")
        return taken, held

    def closed(self, held: Held, epoch: int) -> None:
        """Store an epoch."""
        seconds = held.one.plan.epochs[epoch - 1] * workload.SLOWNESS[held.device]
        rows = [
            jobs.EpochMetric(epoch=epoch, split=split, loss=1.0, accuracy=0.5, images=100, seconds=share * seconds)
            for split, share in _SHARES
        ]
        self.store.record_epoch(_claim(held), rows, step=100 * epoch)

    def progress(self, held: Held) -> None:
        """Store how far a training is."""
        plan = held.one.plan
        steps = jobs.Progress(
            done=_steps(plan, held.done_by(self._clock.seconds)), total=100 * len(plan.epochs), unit="steps"
        )
        self.store.record_progress(_claim(held), steps)

    def yielding(self, running: Sequence[Held]) -> list[Held]:
        """Let the store ask, and return the trainings that were asked just now."""
        trainings = [one for one in running if one.stage is Stage.TRAIN and one.one.plan.spec.preemptible]
        if not trainings or not self.line.standing(Stage.TRAIN):
            return []
        if not self.store.make_room(actor="reconciler", stay=STAY):
            return []
        return [one for one in trainings if self.store.get(_claim(one).id).wish is states.Wish.YIELD]

    def finish(self, held: Held) -> None:
        """Store how a stage has ended."""
        claim, outcome = _claim(held), jobs.Outcome(kind="done")
        if held.yielded:
            urgent = self.store.get(claim.id).yields_to
            if urgent is None:
                self.too_late += 1
            else:
                self.room[str(claim.job.worker)] = urgent
            self.store.finish(claim, jobs.Outcome(kind="yielded"))
            held.one.trained_in = claim.attempt
            self.line.give_back(held.one)
            return
        if held.reason is not None:
            outcome = jobs.Outcome(kind="failed", reason=held.reason, error="as planned")
        self.store.finish(claim, outcome)
        self.line.finish(held.one, held.reason)

    def _watched(self, of: line.Line, stage: Stage, choice: list[line.Waiting]) -> line.Waiting:
        taken = line.in_turn(of, stage, choice)
        self.patience.look(stage, choice, taken, of.running(stage))
        return taken


def _steps(plan: workload.Plan, done: float) -> int:
    """Return the steps of a training of which so much is done: each epoch has a hundred."""
    whole = list(itertools.accumulate(plan.epochs, initial=0.0))
    closed = max(number for number, end in enumerate(whole) if end <= done + 1e-6)
    share = (done - whole[closed]) / plan.epochs[closed] if closed < len(plan.epochs) else 0.0
    return round(100 * (closed + share))


_SHARES: tuple[tuple[jobs.Split, float], ...] = (("train", 0.8), ("val", 0.2))


def _claim(held: Held) -> jobs.Claim:
    if held.claim is None:
        raise RuntimeError("a job of a store has a claim")
    return held.claim


def _identity(name: str) -> jobs.WorkerIdentity:
    return jobs.WorkerIdentity(id=name, host=name, boot_id="", pid_namespace="", pid=1, pid_started=0)


def _worker(name: str, now: datetime) -> jobs.Worker:
    return jobs.Worker(
        identity=_identity(name),
        state=states.WorkerState.ACTIVE,
        devices=(WORKERS[name],) * DEVICES,
        slots=OFFERS[name].devices,
        versions={},
        artifact_root="root",
        started_at=now,
        beat=0,
        beat_at=now,
    )
