"""Which host goes first: one that has the data, while nobody waits for it longer than its head start."""

import itertools
import random
from dataclasses import dataclass, field

import hypothesis
import pytest
from hypothesis import strategies as st

from orchestrator.core import gangs, nearness, resources

GPU = resources.Demand(device="gpu")


def fleet(**free: str) -> list[tuple[str, gangs.Host]]:
    """Return a worker on each host, with these kinds of devices free."""
    return [(name, gangs.Host(worker=f"on-{name}", offer=offer(*kinds.split()))) for name, kinds in free.items()]


def offer(*kinds: str) -> resources.Offer:
    return resources.Offer(
        devices=tuple(
            resources.Device(id=str(number), kind="gpu" if kind == "gpu" else "cpu", name=kind)
            for number, kind in enumerate(kinds)
        )
    )


@pytest.mark.parametrize(
    ("demand", "having", "free", "lets"),
    [
        (resources.ANY, {"near"}, {"here": "cpu", "near": "cpu"}, True),
        (resources.ANY, {"near", "here"}, {"here": "cpu", "near": "cpu"}, False),  # it is here as well
        (resources.ANY, set(), {"here": "cpu", "near": "cpu"}, False),
        (resources.ANY, {"near"}, {"here": "cpu", "near": ""}, False),  # it is busy: nobody waits for it
        (GPU, {"near"}, {"here": "gpu", "near": "cpu cpu"}, False),
        (GPU, {"near", "far"}, {"here": "gpu", "near": "cpu", "far": "cpu gpu"}, True),
        (resources.Demand(gpus=2), {"near"}, {"here": "cpu cpu", "near": "cpu"}, False),
        (resources.ANY, {"gone"}, {"here": "cpu"}, False),
    ],
)
def test_a_slot_lets_only_those_go_first_that_could_begin_at_once(
    demand: resources.Demand, having: set[str], free: dict[str, str], *, lets: bool
) -> None:
    assert nearness.lets_another(demand, host="here", having=having, hosts=fleet(**free)) is lets


@dataclass
class Bells:
    """Idle slots that hear doorbells in any order; a job that begins runs for good."""

    slots: dict[str, int]  #: by host
    queue: list[frozenset[str]]  #: the hosts that have the data of each job, in the order of claims
    chance: random.Random
    now: float = 0.0
    busy: list[str] = field(default_factory=list)
    begun: list[tuple[float, str]] = field(default_factory=list)  #: when and where, in the order of the queue

    def run(self) -> None:
        """Let every bell be heard, and who has let others go first claim a head start later."""
        idle = [host for host, count in self.slots.items() for _ in range(count)]
        bells = len(self.queue)
        later: list[tuple[float, str]] = []
        while (bells and idle) or later:
            if bells and idle:
                bells -= 1
                host = idle.pop(self.chance.randrange(len(idle)))
                if self.lets_another(host):
                    bells += 1
                    later.append((self.now + nearness.HEAD_START, host))
                elif not self.claims(host):
                    idle.append(host)
                continue
            self.now, host = later.pop(0)
            if not self.claims(host):
                idle.append(host)

    def lets_another(self, host: str) -> bool:
        job = self.queue[len(self.begun) :][:1]
        hosts = [(name, self.host(name)) for name in self.slots]
        return bool(job) and nearness.lets_another(resources.ANY, host=host, having=job[0], hosts=hosts)

    def host(self, name: str) -> gangs.Host:
        taken = tuple(gangs.Taken(job=str(number), demand=resources.ANY) for number in range(self.busy.count(name)))
        return gangs.Host(worker=name, offer=offer(*["cpu"] * self.slots[name]), taken=taken)

    def claims(self, host: str) -> bool:
        """Claim the next job by the order, whatever it is; return whether there was one."""
        if len(self.begun) == len(self.queue):
            return False
        self.begun.append((self.now, host))
        self.busy.append(host)
        return True


HOSTS = ("a", "b", "c")


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(
    slots=st.fixed_dictionaries({host: st.integers(0, 3) for host in HOSTS}),
    jobs=st.lists(st.frozensets(st.sampled_from(HOSTS)), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_no_job_waits_longer_than_the_head_start_and_one_alone_goes_to_its_data(
    slots: dict[str, int], jobs: list[frozenset[str]], seed: int
) -> None:
    bells = Bells(slots, jobs, random.Random(seed))  # noqa: S311 - no secret
    bells.run()
    assert len(bells.begun) == min(len(jobs), sum(slots.values())), "a device stands still while a job waits"
    times = [0.0, *(at for at, _ in bells.begun)]
    assert all(after - before <= nearness.HEAD_START for before, after in itertools.pairwise(times))
    at, host = bells.begun[0] if bells.begun else (0.0, "")
    if len(jobs) == 1 and any(slots[name] for name in jobs[0]):
        assert (at, host in jobs[0]) == (0.0, True)
