"""Processes that make batches, forked from the training, into memory that they share with it.

torch's DataLoader makes a file of shared memory for each batch and hands its descriptor over, which takes longer than
making a small batch. Here each process has places for a few batches, which it makes where they stay: the training is
lent the memory itself, and the place is free again when nobody holds the batch any more. Who holds on to batches gets
copies. What goes through the pipes is JSON: the pictures that are asked for and the place they are for, and the classes
of those that are there, or what went wrong.
"""

import contextlib
import json
import math
import mmap
import multiprocessing
import os
import signal
import traceback
import weakref
from collections import deque
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from orchestrator import errors
from orchestrator.core import states

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  #: epoch and index
#: Room for the numbers of a batch, one behind the other.
Place = npt.NDArray[np.float32]

#: Batches that each process is ahead, as in torch's DataLoader.
AHEAD = 2
#: Places of each process: one more than it is ahead, which is lent.
_PLACES = AHEAD + 1
_VALUE = np.dtype(np.float32)
#: Numbers in 64 bytes, at whose multiples torch's own memory begins: sums may depend on it.
_ALIGNED = 64 // _VALUE.itemsize
#: Seconds in which a process ends once it is told to.
_END_SECONDS = 5.0
#: Those of this process that have not been seen to end.
_running: "weakref.WeakSet[_Maker]" = weakref.WeakSet()


class Pictures(Protocol):
    """A data set that makes whole batches."""

    def __getitems__(self, keys: list[Key], *, into: Place | None = None) -> Batch:
        """Return a batch, its pictures at the beginning of a place where one is given."""

    def values(self, count: int) -> int:
        """Return how many numbers so many pictures are at most."""


class Makers:
    """So many processes that make batches of these pictures; they end with the training, and no drain ends them."""

    def __init__(self, pictures: Pictures, count: int, *, largest: int) -> None:
        """Start them; no batch may have more than `largest` pictures."""
        self.largest = largest
        self._makers = [_Maker(pictures, pictures.values(largest)) for _ in range(count)]

    def load(self, batches: list[list[Key]], *, pin_memory: bool) -> Generator[Batch]:
        """Yield the batches, in order.

        Raises:
            StageFailed: lost, where a process was killed.
            OSError, MemoryError, RuntimeError: as making a batch did.

        """
        under_way: deque[_Maker] = deque()
        try:
            for number, keys in enumerate(batches):
                if len(under_way) == AHEAD * len(self._makers):
                    yield under_way.popleft().take(pin_memory=pin_memory)
                maker = self._makers[number % len(self._makers)]
                maker.ask(keys)
                under_way.append(maker)
            while under_way:
                yield under_way.popleft().take(pin_memory=pin_memory)
        finally:
            for maker in under_way:  # a pass that was left, or that failed
                with contextlib.suppress(Exception):
                    maker.take(pin_memory=False)

    def close(self) -> None:
        """End the processes, all at once: each keeps the pipes of those that were started before it open."""
        for maker in self._makers:
            maker.dismiss()
        for maker in self._makers:
            maker.ended()


class _Maker:
    """One process, seen from the training."""

    def __init__(self, pictures: Pictures, values: int) -> None:
        values += -values % _ALIGNED
        self._places: Place = np.frombuffer(mmap.mmap(-1, _PLACES * values * _VALUE.itemsize), _VALUE)
        self._places = self._places.reshape(_PLACES, values)
        self._free = list(range(_PLACES))
        self._asked: deque[int] = deque()  #: the places of what is under way
        self._pipe, theirs = multiprocessing.Pipe()
        pid = os.fork()
        if pid == 0:
            _be(pictures, theirs, self._pipe, self._places)
        theirs.close()
        self.process = psutil.Process(pid)
        _running.add(self)

    def ask(self, keys: list[Key]) -> None:
        self._asked.append(self._free.pop())
        with contextlib.suppress(OSError):  # where it was killed, `take` says so
            self._pipe.send_bytes(json.dumps([self._asked[-1], keys]).encode())

    def take(self, *, pin_memory: bool) -> Batch:
        """Return the batch that was asked for first, and lend its place or copy from it."""
        place = self._asked.popleft()
        spare = len(self._free) + len(self._asked) >= AHEAD
        values = self._places[place]
        weakref.finalize(values, self._free.append, place).atexit = False  # when the last that looks at it is gone
        try:
            told = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as gone:
            raise self._killed() from gone
        if "shape" not in told:
            del values  # or who keeps the error would keep the place
            raise _raised(told)
        shape = told["shape"]
        images, labels = torch.from_numpy(values)[: math.prod(shape)].reshape(shape), torch.tensor(told["labels"])
        if pin_memory:
            return images.pin_memory(), labels.pin_memory()
        return images if spare else images.clone(), labels

    def dismiss(self) -> None:
        self._pipe.close()

    def ended(self) -> int | None:
        """Wait for its end, and return its exit code."""
        _running.discard(self)
        try:
            return self.process.wait(_END_SECONDS)
        except psutil.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _killed(self) -> errors.StageFailed:
        return errors.StageFailed(
            "A process that loads pictures was killed.",
            reason=states.Reason.LOST,
            why=f"Its exit code is {self.ended()}; one below 0 is a signal.",
        )


def processes() -> list[psutil.Process]:
    """Return the processes that make batches for this one."""
    return [maker.process for maker in _running]


def _be(pictures: Pictures, pipe: Connection, training: Connection, places: Place) -> NoReturn:
    """Make what is asked for until nobody asks, and end without what the training would do at its end."""
    code = 1
    try:
        training.close()  # or its own copy of the other end would keep it from seeing the training's end
        _make(pictures, pipe, places)
        code = 0
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(code)


def _make(pictures: Pictures, pipe: Connection, places: Place) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT):
        # A drain may signal the whole process group; the training still needs its batch to reach the next step.
        signal.signal(ignored, signal.SIG_IGN)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            place, asked = json.loads(pipe.recv_bytes())
            keys = [(epoch, index) for epoch, index in asked]
            pipe.send_bytes(json.dumps(_made(pictures, keys, places[place])).encode())


def _made(pictures: Pictures, keys: list[Key], place: Place) -> dict[str, Any]:
    try:
        images, labels = pictures.__getitems__(keys, into=place)
    except Exception as error:  # noqa: BLE001 - the training fails of it
        number, path = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
        return {
            "kind": "memory" if isinstance(error, MemoryError) else "file" if isinstance(error, OSError) else "",
            "errno": number,
            "path": None if path is None else os.fsdecode(path),
            "said": " ".join(traceback.format_exception_only(error)).strip(),
            "where": traceback.format_exc(),
        }
    return {"shape": list(images.shape), "labels": labels.tolist()}


def _raised(told: dict[str, Any]) -> Exception:
    """Return what a process told that it met, as far as a training asks what kind it is."""
    error: Exception
    if told["kind"] == "memory":
        error = MemoryError(told["said"])
    elif told["kind"] == "file" and told["errno"] is not None:
        error = OSError(told["errno"], os.strerror(told["errno"]), told["path"])
    else:
        error = OSError(told["said"]) if told["kind"] == "file" else RuntimeError(told["said"])
    error.add_note(f"In a process that loads pictures:\n{told['where']}")
    return error
