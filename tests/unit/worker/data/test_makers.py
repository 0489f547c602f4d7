"""Processes that make batches: what they meet is raised as what it is, and they end with the training alone."""

import errno
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import psutil
import pytest
import torch

from orchestrator import errors
from orchestrator.core import states
from tests.support.waiting import until
from worker.data import crews, makers

#: Indices that stand for a picture with which something is wrong.
GONE, BROKEN, TOO_LARGE, ODD = 100, 101, 102, 103
WRONG: dict[int, Exception] = {
    GONE: FileNotFoundError(errno.ENOENT, "No such file or directory", "/pictures/gone.jpg"),
    BROKEN: OSError("broken data stream when reading image file"),
    TOO_LARGE: MemoryError("12 GiB"),
    ODD: KeyError("odd"),
}


class Pictures:
    """Each is full of its index."""

    def values(self, count: int) -> int:
        return count * 3 * 2 * 2

    def __getitems__(self, keys: list[makers.Key], *, into: makers.Place | None = None) -> makers.Batch:
        for _, index in keys:
            if index in WRONG:
                raise WRONG[index]
        images = torch.stack([torch.full((3, 2, 2), float(index)) for _, index in keys])
        if into is not None:
            into[: images.numel()] = images.flatten()
        return images, torch.tensor([index % 2 for _, index in keys])


def keys(*indices: int) -> list[makers.Key]:
    return [(0, index) for index in indices]


def processes(made: makers.Makers) -> list[psutil.Process]:
    return [maker.process for maker in made._makers]


@pytest.fixture
def two() -> Iterator[makers.Makers]:
    with closing(makers.Makers(Pictures(), 2, largest=3)) as made:
        yield made


def test_batches_come_in_order_and_stay_what_they_were(two: makers.Makers) -> None:
    asked = [keys(*range(start, min(start + 3, 20))) for start in range(0, 20, 3)]
    made = list(two.load(asked, pin_memory=False))
    assert [images[:, 0, 0, 0].tolist() for images, _ in made] == [[index for _, index in batch] for batch in asked]
    assert [labels.tolist() for _, labels in made] == [[index % 2 for _, index in batch] for batch in asked]


def at(batch: makers.Batch) -> tuple[int, float]:
    """Return where its pictures lie, and the number that they are full of."""
    images, _ = batch
    return images.data_ptr(), float(images[0, 0, 0, 0])


def test_what_a_process_made_is_lent_and_its_place_used_again() -> None:
    with closing(makers.Makers(Pictures(), 2, largest=3)) as made:
        seen = [at(batch) for batch in made.load([keys(index) for index in range(40)], pin_memory=False)]
        places = made._makers[0]._places.ctypes.data, made._makers[1]._places.ctypes.data
    assert [number for _, number in seen] == list(range(40))
    room = 3 * made._makers[0]._places[0].nbytes
    assert all(places[number % 2] <= where < places[number % 2] + room for number, (where, _) in enumerate(seen))
    assert all(where % 64 == 0 for where, _ in seen)


@pytest.mark.parametrize("held", [1, 2, 5])
def test_who_holds_on_to_batches_finds_them_as_they_were(held: int, two: makers.Makers) -> None:
    holding: deque[makers.Batch] = deque(maxlen=held)
    for last, batch in enumerate(two.load([keys(index) for index in range(30)], pin_memory=False)):
        holding.append(batch)
        kept = range(max(0, last - held + 1), last + 1)
        assert [set(images.flatten().tolist()) for images, _ in holding] == [{number} for number in kept]
    assert {len(maker._free) for maker in two._makers} <= {2, 3}
    del batch
    holding.clear()
    assert [sorted(maker._free) for maker in two._makers] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("index", WRONG)
def test_what_is_met_is_raised_as_what_it_is_and_the_next_pass_is_whole(two: makers.Makers, index: int) -> None:
    met = WRONG[index]
    kind = type(met) if isinstance(met, OSError | MemoryError) else RuntimeError
    with pytest.raises(kind, match="odd" if index == ODD else None) as raised:
        list(two.load([keys(1), keys(2, index), keys(3), keys(4)], pin_memory=False))
    assert "__getitems__" in "".join(raised.value.__notes__)
    if isinstance(met, OSError) and isinstance(raised.value, OSError):
        assert (raised.value.errno, raised.value.filename) == (met.errno, met.filename)
    ((images, _),) = two.load([keys(5)], pin_memory=False)
    assert float(images[0, 0, 0, 0]) == 5


def test_a_pass_that_is_left_does_not_reach_into_the_next(two: makers.Makers) -> None:
    with closing(two.load([keys(index) for index in range(9)], pin_memory=False)) as left:
        next(left)
    assert [float(images[0, 0, 0, 0]) for images, _ in two.load([keys(7), keys(8)], pin_memory=False)] == [7, 8]


def test_one_that_is_killed_loses_the_attempt(two: makers.Makers) -> None:
    list(two.load([keys(1), keys(2)], pin_memory=False))
    processes(two)[1].kill()
    with pytest.raises(errors.StageFailed, match="loads pictures was killed") as failed:
        list(two.load([keys(1), keys(2)], pin_memory=False))
    assert failed.value.reason is states.Reason.LOST
    assert "-9" in str(failed.value.why)
    for _ in range(3):  # and no place is lost with it
        with pytest.raises((errors.StageFailed, psutil.NoSuchProcess)):
            list(two.load([keys(number) for number in range(9)], pin_memory=False))


def test_a_drain_does_not_end_them(two: makers.Makers) -> None:
    list(two.load([keys(1), keys(2)], pin_memory=False))  # else it could come before it is ignored
    for process in processes(two):
        process.terminate()
        process.send_signal(signal.SIGINT)
    assert len(list(two.load([keys(1), keys(2)], pin_memory=False))) == 2
    two.close()
    assert not any(process.is_running() for process in processes(two))


def _train(told: Connection) -> None:
    made = makers.Makers(Pictures(), 2, largest=1)
    told.send_bytes(",".join(str(process.pid) for process in processes(made)).encode())
    signal.pause()


def test_they_end_with_a_training_that_is_killed() -> None:
    mine, theirs = Pipe()
    training = os.fork()
    if training == 0:
        try:
            _train(theirs)
        finally:
            os._exit(1)
    pids = [int(pid) for pid in mine.recv_bytes().split(b",")]
    os.kill(training, signal.SIGKILL)
    os.waitpid(training, 0)
    until(lambda: not any(psutil.pid_exists(pid) and _lives(pid) for pid in pids), seconds=60)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_pass_may_have_no_batches(kind: crews.Kind) -> None:
    """A training that goes on behind the last step of an epoch, or a rank for which no pictures are left."""
    with closing(crews.Crew(kind, 2, pin_memory=False)) as crew:
        assert list(crew.load(Pictures(), [], stay=True)) == []
        assert len(list(crew.load(Pictures(), [keys(1)], stay=True))) == 1


def test_larger_batches_than_before_are_made_by_others() -> None:
    with closing(crews.Crew("processes", 2, pin_memory=False)) as crew:
        pictures = Pictures()
        assert len(list(crew.load(pictures, [keys(1)], stay=True))) == 1
        first = processes(crew._staying[pictures])
        (made,) = crew.load(pictures, [keys(1, 2, 3)], stay=True)
        assert made[0].shape == (3, 3, 2, 2)
        assert not any(process.is_running() for process in first)
        second = processes(crew._staying[pictures])
        assert len(list(crew.load(pictures, [keys(1, 2)], stay=True))) == 1
        assert processes(crew._staying[pictures]) == second


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_what_an_error_has_left_of_a_pass_ends_with_the_crew(kind: crews.Kind) -> None:
    """Whoever keeps the error keeps the pass, and who loads would go on."""

    def loading() -> set[object]:
        return {*makers.processes(), *(one for one in threading.enumerate() if one.name.startswith("loader"))}

    before = loading()
    crew = crews.Crew(kind, 2, pin_memory=False)
    left = crew.load(Pictures(), [keys(index) for index in range(40)])
    next(left)
    assert loading() - before
    crew.close()
    assert not loading() - before
    del left
