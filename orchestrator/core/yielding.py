"""Which training makes room for an urgent job: a pure rule on top of the one order of claims.

A preemptible training yields where the next claim of its worker, if its device were free and it waited itself, would be
a job of strictly higher priority. Priority alone makes none yield: the other must be next by the order as well. Since a
job yields to none of its own priority, two never yield to each other; and since each stays for a while before it is
asked, every claim brings it nearer to its end.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.core import ordering


@dataclass(frozen=True, kw_only=True)
class Training:
    """A preemptible training that runs."""

    job: str  #: its id
    priority: int
    began_at: datetime  #: when it was claimed
    yields_to: str | None = None  #: id of the job that it has been asked to make room for

    def has_stayed(self, stay: timedelta, now: datetime) -> bool:
        """Whether it has run long enough to be asked."""
        return now - self.began_at >= stay


@dataclass(frozen=True, kw_only=True)
class Urgent:
    """The job that a worker would claim next, if a training there made room."""

    job: str  #: its id
    priority: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A training, and the job that it is to make room for from now on; None: for none any more."""

    training: Training
    urgent: Urgent | None


def in_turn(contenders: Iterable[ordering.Contender], back: ordering.Contender) -> list[ordering.Contender]:
    """Return who is next where a training is back in the queue, and who then.

    `back` is its user as they would stand then, with the training as their first job; the others are as they are.
    """
    others = [replace(one, running=back.running) if one.user == back.user else one for one in contenders]
    return ordering.in_turn([*others, back])


def asked(
    trainings: Collection[Training], urgent: Callable[[Training], Urgent | None], *, stay: timedelta, now: datetime
) -> Iterator[Asked]:
    """Yield the trainings of which something else is wished from now on.

    `urgent` says whom a training could make room for: the next claim there, unless that job has a place elsewhere. One
    training is asked for each such job, that which loses least: the lowest priority, then the one that began last.
    """
    served: set[str] = set()
    yielding = [one for one in trainings if one.yields_to is not None]
    staying = [one for one in trainings if one.yields_to is None and one.has_stayed(stay, now)]
    for training in [*yielding, *sorted(staying, key=_loss)]:
        found = urgent(training)
        if found is not None and (found.priority <= training.priority or found.job in served):
            found = None
        if found is not None:
            served.add(found.job)
        if training.yields_to != (None if found is None else found.job):
            yield Asked(training=training, urgent=found)


def _loss(training: Training) -> tuple[int, float]:
    return training.priority, -training.began_at.timestamp()
