"""Which training makes room for an urgent job: a pure rule on top of the one order of claims.

A preemptible training yields where the next claim of its worker, if its device were free and it waited itself, would be
a job of strictly higher priority. Priority alone makes none yield: the other must be next by the order as well. Since a
job yields to none of its own priority, two never yield to each other; and since each stays for a while before it is
asked, every claim brings it nearer to its end.

For a job on several devices several trainings of one worker yield together: where that worker holds back for it as soon
as the first of them has gone, and it is next however many of them have gone, so that none yields in vain.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.core import gangs, ordering, resources


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


#: A job on several devices, and the trainings of one worker that could make room for it together.
Together = tuple[Urgent, tuple[Training, ...]]


def in_turn(contenders: Iterable[ordering.Contender], back: ordering.Contender) -> list[ordering.Contender]:
    """Return who is next where a training is back in the queue, and who then.

    `back` is its user as they would stand then, with the training as their first job; the others are as they are.
    """
    others = [replace(one, running=back.running) if one.user == back.user else one for one in contenders]
    return ordering.in_turn([*others, back])


def in_turn_meanwhile(
    contenders: Iterable[ordering.Contender], backs: Collection[ordering.Contender], gang: ordering.Contender
) -> list[ordering.Contender]:
    """Return who is next where several trainings go back into the queue one after the other, and who then.

    All are as they stand now; `backs` have a training each as their first job. Every other user is taken to run none of
    these any more, the user of `gang` all of them: whom it goes before then, it goes before however many have gone.
    """
    fewer = Counter(back.user for back in backs if back.user != gang.user)
    return ordering.in_turn(replace(one, running=one.running - fewer[one.user]) for one in (*contenders, *backs))


def enough_of(demand: resources.Demand, host: gangs.Host, trainings: Iterable[Training]) -> tuple[Training, ...]:
    """Return the first trainings of a worker without which it has enough devices for a job; none if all are too few."""
    going: dict[str, Training] = {}
    for one in trainings:
        has = gangs.different(demand, host.without(*going).free)
        if len(has) >= demand.gpus:
            break
        if len(gangs.different(demand, host.without(*going, one.job).free)) > len(has):
            going[one.job] = one
    for job in list(going):  # one of several devices may make that of an earlier one superfluous
        if gangs.chosen(demand, host.without(*(going.keys() - {job})).free):
            del going[job]
    return tuple(going.values()) if gangs.chosen(demand, host.without(*going).free) else ()


def asked(
    trainings: Collection[Training],
    urgent: Callable[[Training], Urgent | None],
    together: Callable[[Sequence[Training]], Iterable[Together]] = lambda _: (),
    *,
    stay: timedelta,
    now: datetime,
) -> Iterator[Asked]:
    """Yield the trainings of which something else is wished from now on.

    `urgent` says whom a training could make room for: the next claim there, unless that job has a place elsewhere. One
    training is asked for each such job, that which loses least: the lowest priority, then the one that began last.
    `together` says for whom several of the others could, of which it takes the first that will do.
    """
    wanted: dict[str, Urgent] = {}
    served: set[str] = set()
    yielding = [one for one in trainings if one.yields_to is not None]
    staying = [one for one in trainings if one.yields_to is None and one.has_stayed(stay, now)]
    there = [*sorted(yielding, key=_loss), *sorted(staying, key=_loss)]
    for training in there:
        found = urgent(training)
        if found is None or found.priority <= training.priority or found.job in served:
            continue
        served.add(found.job)
        wanted[training.job] = found
    for found, some in together([one for one in there if one.job not in wanted]):
        if found.job not in served and all(one.priority < found.priority for one in some):
            served.add(found.job)
            wanted |= dict.fromkeys((one.job for one in some), found)
    for training in there:
        new = wanted.get(training.job)
        if training.yields_to != (None if new is None else new.job):
            yield Asked(training=training, urgent=new)


def _loss(training: Training) -> tuple[int, float]:
    return training.priority, -training.began_at.timestamp()
