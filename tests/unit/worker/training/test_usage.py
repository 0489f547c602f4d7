"""What a training takes of its host is measured where it is taken."""

import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest
import torch

from tests.unit.worker.data.test_makers import Pictures
from tests.unit.worker.training import support
from worker import protocol
from worker.data import makers
from worker.training import stage, usage

CPU = torch.device("cpu")


class Clock:
    """Time that passes where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_waiting_is_the_time_between_asking_for_a_batch_and_having_it(clock: Clock) -> None:
    def batches() -> Iterator[int]:
        for number in range(3):
            clock.now += 3
            yield number

    gauge = usage.Gauge(CPU)
    for _ in gauge.watched(batches()):
        clock.now += 1
    assert gauge.end().waiting == 0.75
    gauge.begin()
    clock.now += 5
    assert gauge.end().waiting == 0


def test_processes_that_load_pictures_count(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "_running", weakref.WeakSet())  # without those of earlier tests that end just now
    gauge = usage.Gauge(CPU)
    alone = gauge.end().memory
    assert alone == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    with closing(makers.Makers(Pictures(), 1, largest=1)):
        (loading,) = makers.processes()
        assert gauge.end().memory > alone + loading.memory_info().rss / 2
    spent = iter([10.0, 16.0])
    monkeypatch.setattr(usage.Gauge, "_cpu", lambda _: next(spent))
    gauge.begin()
    clock.now += 4
    assert gauge.end().cores == 1.5


def test_a_gpu_is_seen_through_its_driver_and_missed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usage._Gpu.of(CPU) is None
    assert usage._Gpu.of(torch.device("cuda", 0)) is None  # no driver here
    seen: dict[str, Any] = {"gpu": 50, "used": 2**30}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda _: type("U", (), seen))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _: type("M", (), seen))
    monkeypatch.setattr(usage._Gpu, "of", lambda _: usage._Gpu("handle"))
    gauge = usage.Gauge(CPU)
    list(gauge.watched([1]))
    seen["gpu"], seen["used"] = 100, 2**29
    found = gauge.end()
    assert (found.gpu, found.gpu_memory) == (0.75, 2**30)


def test_every_epoch_tells_what_it_took(data: protocol.DatasetInfo, root: Any) -> None:
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=2)), follower)
    rows = [row for message in follower.of(protocol.CheckpointWritten) for row in message.metrics]
    assert rows
    for row in rows:
        assert (row.usage is not None) == (row.split == "train")
        if row.usage is not None:
            assert 0 < row.usage.waiting < 1
            assert row.usage.memory > 2**20


def test_an_epoch_whose_steps_were_all_made_before_a_stop_has_none(data: protocol.DatasetInfo, root: Path) -> None:
    """Of no steps anything could be said: that they waited for their data, for example."""
    first, second = support.Follower(support.stop_at(5)), support.Follower()  # before the first batch of validation
    stage.train(data, support.assignment(root, support.spec()), first)
    stage.train(data, support.assignment(root, support.spec(), attempt=2, earlier=(first,)), second)
    assert first.of(protocol.CheckpointWritten)[0].checkpoint.step == 3
    closed = [said.metrics[0] for said in second.of(protocol.CheckpointWritten) if said.metrics]
    assert [row.usage is None for row in closed] == [True, False, False]
