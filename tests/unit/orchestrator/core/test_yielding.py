"""Who makes room for whom: the pure rule, and that days of it end with every job done."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
from hypothesis import strategies as st

from orchestrator.core import gangs, ordering, resources, yielding

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
STAY = timedelta(minutes=5)
LONG_AGO = NOW - timedelta(hours=1)


def training(
    job: str = "v", *, priority: int = 0, began_at: datetime = LONG_AGO, to: str | None = None
) -> yielding.Training:
    return yielding.Training(job=job, priority=priority, began_at=began_at, yields_to=to)


def urgent(priority: int, job: str = "u") -> yielding.Urgent:
    return yielding.Urgent(job=job, priority=priority)


@pytest.mark.parametrize(
    ("running", "found", "to"),
    [
        (training(), urgent(1), "u"),
        (training(), urgent(0), None),  # equals never yield to each other
        (training(priority=2), urgent(1), None),
        (training(), None, None),  # it would be next itself, or the next one has a place elsewhere
        (training(began_at=NOW - STAY), urgent(1), "u"),
        (training(began_at=NOW - STAY + timedelta(seconds=1)), urgent(1), None),  # it has just begun
    ],
)
def test_a_training_yields_to_a_higher_priority_that_is_next(
    running: yielding.Training, found: yielding.Urgent | None, to: str | None
) -> None:
    asked = next(yielding.asked([running], lambda _: found, stay=STAY, now=NOW), None)
    assert (asked and asked.urgent and asked.urgent.job) == to


def test_what_was_asked_is_taken_back_or_goes_on() -> None:
    yields = training(to="u", began_at=NOW)
    assert list(yielding.asked([yields], lambda _: urgent(1), stay=STAY, now=NOW)) == []
    (back,) = yielding.asked([yields], lambda _: None, stay=STAY, now=NOW)
    assert back.urgent is None
    (other,) = yielding.asked([yields], lambda _: urgent(1, "w"), stay=STAY, now=NOW)
    assert other.urgent == urgent(1, "w")


def test_one_yields_to_each_and_that_one_which_loses_least() -> None:
    later = LONG_AGO + timedelta(seconds=1)
    three = [training("a", priority=1, began_at=later), training("b"), training("c", began_at=later)]
    (asked,) = yielding.asked(three, lambda _: urgent(2), stay=STAY, now=NOW)
    assert asked.training.job == "c"
    three[0] = training("a", priority=1, to="u")
    assert list(yielding.asked(three, lambda _: urgent(2), stay=STAY, now=NOW)) == []


# ---- several for one on several devices


def test_several_yield_together_and_each_to_one_job_only() -> None:
    three = [training("a"), training("b"), training("c", priority=5)]

    def together(left: Sequence[yielding.Training]) -> list[yielding.Together]:
        return [(urgent(2, "gang"), tuple(left[:2])), (urgent(2, "gang"), tuple(left[1:]))]

    asked = list(yielding.asked(three, lambda _: None, together, stay=STAY, now=NOW))
    assert [(one.training.job, one.urgent) for one in asked] == [("a", urgent(2, "gang")), ("b", urgent(2, "gang"))]
    there = [replace(one, yields_to="gang") for one in three[:2]]
    assert list(yielding.asked([*there, three[2]], lambda _: None, together, stay=STAY, now=NOW)) == []
    back = list(yielding.asked(there, lambda _: None, stay=STAY, now=NOW))
    assert [(one.training.job, one.urgent) for one in back] == [("a", None), ("b", None)]


@pytest.mark.parametrize("priority", [1, 2])
def test_none_of_several_yields_where_one_may_not(priority: int) -> None:
    some = (training("a"), training("b", priority=priority))
    asked = yielding.asked(some, lambda _: None, lambda _: [(urgent(1, "gang"), some)], stay=STAY, now=NOW)
    assert list(asked) == []


def test_one_that_makes_room_alone_is_none_of_several() -> None:
    seen: list[Sequence[yielding.Training]] = []

    def together(left: Sequence[yielding.Training]) -> list[yielding.Together]:
        seen.append(left)
        return []

    three = [training("a"), training("b"), training("c")]
    answers = {"b": urgent(1, "u")}
    list(yielding.asked(three, lambda one: answers.get(one.job), together, stay=STAY, now=NOW))
    assert [one.job for one in seen[0]] == ["a", "c"]


A100 = resources.Demand(gpus=2, device="a100")
DEVICES = tuple(
    resources.Device(id=str(number), kind="gpu", name=name)
    for number, name in enumerate(["A100", "T4", "A100", "A100"])
)


@pytest.mark.parametrize(
    ("busy", "order", "going"),
    [
        ({"a": "0", "b": "1", "c": "2", "d": "3"}, "abcd", "ac"),  # the first ones that have such a device
        ({"a": "0", "b": "1", "c": "2"}, "abc", "a"),  # one such device is free already
        ({"a": "0", "b": "1"}, "ab", ""),  # two are
        ({"a": "0", "b": "1", "c": "2", "d": "3"}, "ab", ""),  # all are too few
        ({"a": "0", "b": "23"}, "ab", "b"),  # one has enough by itself
    ],
)
def test_no_more_yield_than_it_takes(busy: dict[str, str], order: str, going: str) -> None:
    taken = tuple(
        gangs.Taken(job=job, demand=resources.Demand(gpus=len(numbers)), devices=tuple(numbers))
        for job, numbers in busy.items()
    )
    host = gangs.Host(worker="w", offer=resources.Offer(devices=DEVICES), taken=taken)
    found = yielding.enough_of(A100, host, [training(job) for job in order])
    assert "".join(one.job for one in found) == going


def contender(seq: int, user: str, running: int, served: int, rank: int) -> ordering.Contender:
    at = LONG_AGO + timedelta(seconds=served)
    return ordering.Contender(user=user, running=running, served_at=at, rank=rank, seq=seq)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(
    users=st.fixed_dictionaries({user: st.tuples(st.integers(0, 2), st.integers(0, 3)) for user in "abc"}),
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=4),
    trainings=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=4),
)
def test_who_is_next_meanwhile_is_next_however_many_have_gone(
    users: dict[str, tuple[int, int]], jobs: list[tuple[str, int]], trainings: list[tuple[str, int]]
) -> None:
    """The first job is the one on several devices; the trainings run beside what else their users run."""
    runs = Counter(user for user, _ in trainings)
    made = [
        contender(seq, user, users[user][0] + runs[user], users[user][1], rank)
        for seq, (user, rank) in enumerate([*jobs, *trainings])
    ]
    waiting, backs = made[: len(jobs)], made[len(jobs) :]
    hypothesis.assume(yielding.in_turn_meanwhile(waiting, backs, waiting[0])[0].seq == 0)
    for count in range(len(backs) + 1):
        for gone in itertools.combinations(backs, count):
            fewer = Counter(one.user for one in gone)
            now = [replace(one, running=one.running - fewer[one.user]) for one in (*waiting, *gone)]
            assert ordering.in_turn(now)[0].seq == 0


# ---- days of it


@dataclass(kw_only=True)
class Job:
    """A job that needs a device for so long."""

    seq: int
    user: str
    priority: int
    at: datetime
    left: timedelta
    preemptible: bool
    began_at: datetime | None = None
    yielded: int = 0
    worked: timedelta = timedelta()

    @property
    def rank(self) -> float:
        return ordering.rank(submitted_at=self.at, priority=self.priority)


@dataclass(kw_only=True)
class Queue:
    """Devices alike, and the rules; time goes by in steps of a minute."""

    devices: int
    jobs: list[Job]
    now: datetime = NOW
    served: dict[str, datetime] = field(default_factory=dict)
    urgent_next: dict[int, int] = field(default_factory=dict)  #: whom a device was freed for

    @property
    def waiting(self) -> list[Job]:
        return [job for job in self.jobs if job.at <= self.now and job.began_at is None and job.left > timedelta()]

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs if job.began_at is not None]

    def contenders(self) -> list[ordering.Contender]:
        running = Counter(job.user for job in self.running)
        return [
            ordering.Contender(
                user=job.user,
                running=running[job.user],
                served_at=self.served.get(job.user),
                rank=job.rank,
                seq=job.seq,
            )
            for job in self.waiting
        ]

    def claim(self) -> Job:
        """Give a free device to whoever is next."""
        job = self.jobs[ordering.in_turn(self.contenders())[0].seq]
        job.began_at = self.served[job.user] = self.now
        return job

    def urgent(self, training: yielding.Training) -> yielding.Urgent | None:
        one = self.jobs[int(training.job)]
        back = ordering.Contender(
            user=one.user,
            running=sum(job.user == one.user for job in self.running) - 1,
            served_at=self.served[one.user],
            rank=one.rank,
            seq=one.seq,
        )
        seq = yielding.in_turn(self.contenders(), back)[0].seq
        return None if seq == one.seq else yielding.Urgent(job=str(seq), priority=self.jobs[seq].priority)

    def make_room(self) -> None:
        """Let trainings yield; whom they yield to is claimed there and then."""
        there = [
            yielding.Training(job=str(job.seq), priority=job.priority, began_at=job.began_at)
            for job in self.running
            if job.preemptible and job.began_at
        ]
        for asked in list(yielding.asked(there, self.urgent, stay=STAY, now=self.now)):
            one = self.jobs[int(asked.training.job)]
            assert asked.urgent is not None
            if self.urgent(asked.training) != asked.urgent:
                continue  # an earlier one of this round has changed who is next: it would be taken back
            assert asked.urgent.priority > one.priority
            assert one.began_at is not None
            assert self.now - one.began_at >= STAY, "it had no time to get on"
            one.began_at, one.yielded = None, one.yielded + 1
            assert self.claim().seq == int(asked.urgent.job), "another one than the urgent job was claimed"

    def work(self, step: timedelta) -> None:
        self.now += step
        for job in self.running:
            job.left -= step
            job.worked += step
            if job.left <= timedelta():
                job.began_at = None


JOBS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(-2, 5),
        st.sampled_from([0, 1, 10, 60, 200]),  # minutes from the one before
        st.sampled_from([1, 4, 30, 150]),  # minutes of work
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(given=JOBS, devices=st.integers(1, 3))
def test_it_ends_and_nobody_starves(given: list[tuple[str, int, int, int, bool]], devices: int) -> None:
    at, made = NOW, []
    for seq, (user, priority, after, minutes, preemptible) in enumerate(given):
        at += timedelta(minutes=after)
        left = timedelta(minutes=minutes)
        made.append(Job(seq=seq, user=user, priority=priority, at=at, left=left, preemptible=preemptible))
    queue, work = Queue(devices=devices, jobs=made), [job.left for job in made]
    rounds, enough = 0, sum(work, timedelta()) + (at - NOW) + timedelta(minutes=len(made))
    while any(job.left > timedelta() for job in made):
        while len(queue.running) < devices and queue.waiting:
            queue.claim()
        queue.make_room()
        queue.work(timedelta(minutes=1))
        rounds += 1
        assert rounds * timedelta(minutes=1) <= enough, "devices stood still, or jobs yield for ever"
    for job, whole in zip(made, work, strict=True):
        assert job.worked >= whole
        assert job.yielded <= whole / STAY, "each stay brings a job nearer to its end"
        assert job.yielded == 0 or job.preemptible
