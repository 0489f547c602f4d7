"""Who holds back for a job on several devices: no device is used twice, nobody starves, and only one worker waits."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from orchestrator.core import gangs, resources

CPU = resources.ONE_CPU.devices[0]


def host(name: str, slots: int, taken: int = 0, *, label: str | None = None) -> gangs.Host:
    devices = tuple(dataclasses.replace(CPU, id=f"cpu.{number}") for number in range(slots))
    offer = resources.Offer(devices=devices, labels=(label,) if label else ())
    busy = tuple(gangs.Taken(job=f"job{number}", demand=resources.ANY) for number in range(taken))
    return gangs.Host(worker=name, offer=offer, taken=busy)


def test_the_one_with_the_most_free_holds_back_then_the_first_by_name() -> None:
    gang = resources.Demand(gpus=3)
    hosts = [host("a", 2), host("b", 4, 3), host("c", 4, 2), host("d", 3, 1)]
    holder = gangs.holder(gang, hosts)
    assert holder
    assert holder.worker == "c"  # the first one never could
    assert gangs.holder(resources.Demand(gpus=5), hosts) is None
    labelled = gangs.holder(resources.Demand(gpus=2, labels=("x",)), [*hosts, host("e", 2, 2, label="x")])
    assert labelled
    assert labelled.worker == "e"


def test_a_worker_that_has_enough_relieves_all_others() -> None:
    gang = resources.Demand(gpus=2)
    holder = gangs.holder(gang, [host("a", 4, 3), host("b", 2, 0)])
    assert holder
    assert (holder.worker, len(gangs.different(gang, holder.free))) == ("b", 2)


A100, T4 = (resources.Device(id=f"gpu-{name}", kind="gpu", name=name) for name in ("A100", "T4"))
UNLIKE = resources.Offer(devices=(A100, T4, CPU))


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ([], [A100, T4, CPU]),
        ([("a100", "gpu-A100")], [T4, CPU]),
        ([("", "gpu-T4")], [A100, CPU]),  # it might have had any, and has this one
        ([("", None)], [T4, CPU]),  # who does not tell has the first one that it could have
        ([("cpu", None)], [A100, T4]),
        ([("", None), ("a100", "gpu-A100")], [CPU]),  # but none that another one has
        ([("a100", "gpu-gone")], [T4, CPU]),  # named as a worker of an earlier version would have
        ([("a100", None), ("a100", None)], [CPU]),  # more than there can be: never fewer slots than jobs
        ([("", "gpu-A100", "gpu-T4")], [CPU]),
    ],
)
def test_a_device_is_struck_for_each_that_a_job_has(
    taken: list[tuple[str | None, ...]], left: list[resources.Device]
) -> None:
    jobs = tuple(
        gangs.Taken(
            job=f"job{number}",
            demand=resources.Demand(device=device or None, gpus=len(named)),
            devices=tuple(name for name in named if name),
        )
        for number, (device, *named) in enumerate(taken)
    )
    assert list(gangs.Host(worker="w", offer=UNLIKE, taken=jobs).free) == left


def test_slots_that_share_a_gpu_are_one_device_for_a_gang() -> None:
    shared = resources.Offer(devices=(A100, A100, T4, T4))
    gang = resources.Demand(gpus=2)
    busy = gangs.Taken(job="a", demand=gang, devices=("gpu-A100", "gpu-T4"))
    host = gangs.Host(worker="w", offer=shared, taken=(busy,))
    assert gangs.chosen(gang, host.free) == (A100, T4)
    second = gangs.Taken(job="b", demand=resources.ANY, devices=("gpu-T4",))
    assert gangs.chosen(gang, dataclasses.replace(host, taken=(busy, second)).free) == ()
    assert gangs.rest(shared.devices, (A100, T4)) == (A100, T4)


def test_what_is_held_together_is_named_together() -> None:
    other = dataclasses.replace(CPU, name="A100")
    assert gangs.named([CPU, other, CPU]) == "2 x CPU, 1 x A100"


@dataclasses.dataclass
class Fleet:
    """Workers that claim by the rule, in whatever order they ask, while small jobs come without end."""

    slots: dict[str, int]
    gang: resources.Demand
    running: dict[str, list[int]]  #: of each worker, how long each small job has to go
    begun: str | None = None  #: who has the gang

    def hosts(self) -> list[gangs.Host]:
        return [host(name, slots, len(self.running[name])) for name, slots in self.slots.items()]

    def asks(self, name: str, length: int) -> None:
        """Let a worker claim what it can: the gang is first in turn, small jobs of this length come after it."""
        while len(self.running[name]) < self.slots[name]:
            me = next(one for one in self.hosts() if one.worker == name)
            if self.begun is None and gangs.chosen(self.gang, me.free):
                self.begun = name
                self.running[name] += [10**6] * self.gang.gpus
            elif self._holds_back(me):
                break
            else:
                self.running[name].append(length)
        assert len(self.running[name]) <= self.slots[name]

    def _holds_back(self, me: gangs.Host) -> bool:
        holder = gangs.holder(self.gang, self.hosts()) if self.begun is None else None
        return holder is not None and holder.worker == me.worker

    def tick(self) -> None:
        self.running = {name: [left - 1 for left in lefts if left > 1] for name, lefts in self.running.items()}


LONGEST = 5


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    wanted=st.integers(2, 4),
    asks=st.lists(st.tuples(st.integers(0, 3), st.integers(1, LONGEST)), min_size=40, max_size=120),
)
@hypothesis.example(slots=[2], wanted=2, asks=[(0, 1), *[(0, 2)] * 60])  # one of two ends at every tick
def test_small_jobs_without_end_do_not_keep_a_gang_waiting(
    slots: list[int], wanted: int, asks: list[tuple[int, int]]
) -> None:
    names = [f"w{number}" for number in range(len(slots))]
    fleet = Fleet(dict(zip(names, slots, strict=True)), resources.Demand(gpus=wanted), {name: [] for name in names})
    for which, length in asks[:2]:  # a fleet at work, before the gang comes
        name = names[which % len(names)]
        if len(fleet.running[name]) < fleet.slots[name]:
            fleet.running[name].append(length)
    # Everybody asks at every tick, in any order: each wait for more devices ends with a small job, of which no more
    # begin on the worker that holds back.
    for which, length in asks:
        for offset in range(len(names)):
            fleet.asks(names[(which + offset) % len(names)], length)
        fleet.tick()
        if fleet.begun:
            break
    could = any(slot >= wanted for slot in slots)
    assert (fleet.begun is not None) is could
