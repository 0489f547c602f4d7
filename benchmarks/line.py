"""Who is next, in memory: by orch's rule as it is written down, or by the order of submission."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from benchmarks import workload
from orchestrator.core import ordering, resources, states
from orchestrator.core.states import Stage


@dataclass(kw_only=True)
class Waiting:
    """A job that stands in the line, at the stage that it waits for."""

    plan: workload.Plan
    submitted_at: datetime
    stage: Stage = Stage.DOWNLOAD
    lost: bool = False  #: whether its worker was lost once
    done: float = 0.0  #: of its training, as its plan has it
    trained_in: int | None = None  #: attempt that did that

    @property
    def rank(self) -> float:
        """What orders the jobs of one user."""
        return ordering.rank(submitted_at=self.submitted_at, priority=self.plan.priority)


#: Chooses among jobs that could begin a stage, of which there is one at least; or lets all of them wait.
Policy = Callable[["Line", Stage, list[Waiting]], Waiting | None]


class Line:
    """Jobs that wait and run. One that waits for another stands aside until that one has succeeded."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._waiting: list[Waiting] = []
        self._running: list[Waiting] = []
        self.ended: dict[int, bool] = {}  #: by number, whether it has succeeded
        self.served_at: dict[tuple[str, Stage], datetime] = {}

    def submit(self, plan: workload.Plan, now: datetime) -> None:
        """Let a job stand in the line."""
        self._waiting.append(Waiting(plan=plan, submitted_at=now))
        self._drop_the_hopeless()

    def standing(self, stage: Stage) -> list[Waiting]:
        """Return the jobs that wait for a stage and for no other job."""
        return [
            one
            for one in self._waiting
            if one.stage is stage and (one.plan.after is None or one.plan.after in self.ended)
        ]

    def claimable(self, stage: Stage, offer: resources.Offer) -> list[Waiting]:
        """Return the jobs that could begin a stage on a worker."""
        return [one for one in self.standing(stage) if not one.plan.demand.unmet(stage, offer)]

    def claim(self, stages: Iterable[Stage], offer: resources.Offer, now: datetime) -> Waiting | None:
        """Take the next job for the first of the stages that has one."""
        for stage in stages:
            choice = self.claimable(stage, offer)
            taken = self._policy(self, stage, choice) if choice else None
            if taken is not None:
                self._waiting.remove(taken)
                self._running.append(taken)
                self.served_at[taken.plan.user, stage] = now
                return taken
        return None

    def give_back(self, one: Waiting) -> None:
        """Let a job that runs wait again, at the same stage."""
        self._running.remove(one)
        self._waiting.append(one)

    def running(self, stage: Stage) -> Counter[str]:
        """Return how many jobs of each user run at a stage."""
        return Counter(one.plan.user for one in self._running if one.stage is stage)

    def finish(self, one: Waiting, reason: states.Reason | None) -> None:
        """End the stage of a job that runs."""
        self._running.remove(one)
        if reason is states.Reason.LOST:
            one.lost, one.done, one.trained_in = True, 0.0, None
            self._waiting.append(one)
        elif reason is not None or one.stage is Stage.EVALUATE:
            self.ended[one.plan.number] = reason is None
            self._drop_the_hopeless()
        else:
            one.stage = Stage.TRAIN if one.stage is Stage.DOWNLOAD else Stage.EVALUATE
            self._waiting.append(one)

    def _drop_the_hopeless(self) -> None:
        """Fail what waits for the success of a job that has failed, and so on."""
        while gone := [
            one for one in self._waiting if self.ended.get(-1 if one.plan.after is None else one.plan.after) is False
        ]:
            for one in gone:
                self._waiting.remove(one)
                self.ended[one.plan.number] = False


def in_turn(line: Line, stage: Stage, choice: list[Waiting]) -> Waiting:
    """Choose by the rule of `core.ordering`."""
    running, firsts = line.running(stage), dict[str, Waiting]()
    for one in sorted(choice, key=lambda one: (one.rank, one.plan.number)):
        firsts.setdefault(one.plan.user, one)
    contenders = [
        ordering.Contender(
            user=user,
            running=running[user],
            served_at=line.served_at.get((user, stage)),
            rank=first.rank,
            seq=first.plan.number,
        )
        for user, first in firsts.items()
    ]
    return firsts[ordering.in_turn(contenders)[0].user]


def in_order(_: Line, __: Stage, choice: list[Waiting]) -> Waiting:
    """Choose who was submitted first; who cannot begin is passed over."""
    return min(choice, key=lambda one: one.plan.number)


def strictly_in_order(line: Line, stage: Stage, choice: list[Waiting]) -> Waiting | None:
    """Choose who was submitted first, or nobody where that one cannot begin."""
    first = in_order(line, stage, line.standing(stage))
    return first if first in choice else None


class Patience:
    """Watches claims: how far jobs are overtaken, and for how many turns users are passed over."""

    def __init__(self) -> None:
        self.passed_over = 0  #: claims in a row for others while a user with nothing at the stage could begin something
        self.overtaken = timedelta()  #: longest time between two jobs of one user of which the later one began first
        self.faults: list[str] = []  #: overtakings that no priority allows
        self._passed: defaultdict[tuple[str, Stage], int] = defaultdict(int)

    def look(self, stage: Stage, choice: list[Waiting], taken: Waiting, running: Counter[str]) -> None:
        """Look at a claim; `choice` and `running` are as they were before it."""
        for user in workload.USERS:
            waits = user != taken.plan.user and not running[user] and any(one.plan.user == user for one in choice)
            self._passed[user, stage] = self._passed[user, stage] + 1 if waits else 0
            self.passed_over = max(self.passed_over, self._passed[user, stage])
        for one in choice:
            earlier = taken.submitted_at - one.submitted_at
            if one.plan.user == taken.plan.user and earlier > timedelta():
                self.overtaken = max(self.overtaken, earlier)
                allowed = (taken.plan.priority - one.plan.priority) * ordering.PRIORITY_BONUS
                if earlier > allowed:
                    self.faults.append(f"{taken.plan.number} before {one.plan.number} at {stage}")
