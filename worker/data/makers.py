"""Processes that make batches, forked from the training, into memory that they share with it.

torch's DataLoader makes a file of shared memory for each batch and hands its descriptor over, which takes longer than
making a small batch. Here each process has room for a few batches, which the training copies from. What goes through
the pipes is JSON: the pictures that are asked for, and the classes of those that are there, or what went wrong.
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
import psutil
import torch
from torch import Tensor

from orchestrator import errors
from orchestrator.core import states

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  #: epoch and index

#: Batches that each process is ahead, as in torch's DataLoader.
AHEAD = 2
_VALUE = np.dtype(np.float32)
#: Seconds in which a process ends once it is told to.
_END_SECONDS = 5.0
#: Those of this process that have not been seen to end.
_running: "weakref.WeakSet[_Maker]" = weakref.WeakSet()


class Pictures(Protocol):
    """A data set that makes whole batches."""

    def __getitems__(self, keys: list[Key]) -> Batch: ...

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
        self._room = mmap.mmap(-1, AHEAD * values * _VALUE.itemsize)
        self._places = np.frombuffer(self._room, _VALUE).reshape(AHEAD, values)
        self._taken = 0
        self._pipe, theirs = multiprocessing.Pipe()
        pid = os.fork()
        if pid == 0:
            _be(pictures, theirs, self._pipe, self._places)
        theirs.close()
        self.process = psutil.Process(pid)
        _running.add(self)

    def ask(self, keys: list[Key]) -> None:
        with contextlib.suppress(OSError):  # where it was killed, `take` says so
            self._pipe.send_bytes(json.dumps(keys).encode())

    def take(self, *, pin_memory: bool) -> Batch:
        """Return the batch that was asked for first, as a copy."""
        try:
            told = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as gone:
            raise self._killed() from gone
        place = self._places[self._taken % AHEAD]
        self._taken += 1
        if "shape" not in told:
            raise _raised(told)
        shape = told["shape"]
        images = torch.from_numpy(place[: math.prod(shape)].reshape(shape))
        labels = torch.tensor(told["labels"])
        return (images.pin_memory(), labels.pin_memory()) if pin_memory else (images.clone(), labels)

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


def _be(pictures: Pictures, pipe: Connection, training: Connection, places: Any) -> NoReturn:
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


def _make(pictures: Pictures, pipe: Connection, places: Any) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT):
        # A drain may signal the whole process group; the training still needs its batch to reach the next step.
        signal.signal(ignored, signal.SIG_IGN)
    torch.set_num_threads(1)
    made = 0
    with contextlib.suppress(EOFError, OSError):
        while True:
            keys = [(epoch, index) for epoch, index in json.loads(pipe.recv_bytes())]
            pipe.send_bytes(json.dumps(_made(pictures, keys, places[made % AHEAD])).encode())
            made += 1


def _made(pictures: Pictures, keys: list[Key], place: Any) -> dict[str, Any]:
    try:
        images, labels = pictures.__getitems__(keys)
        place[: images.numel()] = images.numpy().reshape(-1)
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
