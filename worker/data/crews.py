"""Who loads batches: the thread that asks, other threads, or processes. No bit of a batch depends on it.

Threads share the interpreter lock, which decoding and resizing leave; processes share nothing, and every batch is
copied on its way from one. Which is faster depends on the host and on the pictures, so it is measured.
"""

import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  #: epoch and index
Kind = Literal["threads", "processes"]

#: Batches that each of a crew is ahead, as in torch's DataLoader.
_AHEAD = 2
#: Seconds for which each kind is measured, in batches of so many pictures.
_MEASURED, _PIECE = 0.2, 4
#: Threads take less memory and start at once: processes have to be so much faster.
_WORTH = 1.1


class Pictures(Protocol):
    """A data set that makes whole batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Any: ...

    def __getitems__(self, keys: list[Key]) -> Batch: ...


class Crew:
    """So many threads or processes; with none of them, the thread that asks does it.

    Processes end with the training that started them; the signal of a drain does not end them.
    """

    def __init__(self, kind: Kind, workers: int, *, pin_memory: bool) -> None:
        self.kind = kind
        self.workers = workers
        self.pin_memory = pin_memory
        self._staying: dict[Pictures, tuple[_Order, DataLoader[Any]]] = {}

    def load(self, pictures: Pictures, batches: list[list[Key]], *, stay: bool = False) -> Iterator[Batch]:
        """Yield the batches, in order; processes `stay` for the next pass over these pictures."""
        if self.kind == "processes" and self.workers:
            yield from self._by_processes(pictures, batches, stay=stay)
        elif self.workers:
            yield from self._by_threads(pictures, batches)
        else:
            yield from (self._made(pictures, keys) for keys in batches)

    def close(self) -> None:
        """End the processes that have stayed."""
        self._staying.clear()

    def _by_threads(self, pictures: Pictures, batches: list[list[Key]]) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.workers, "loader")
        under_way: deque[Future[Batch]] = deque()
        try:
            for keys in batches:
                under_way.append(pool.submit(self._made, pictures, keys))
                if len(under_way) > _AHEAD * self.workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _made(self, pictures: Pictures, keys: list[Key]) -> Batch:
        images, labels = pictures.__getitems__(keys)
        return (images.pin_memory(), labels.pin_memory()) if self.pin_memory else (images, labels)

    def _by_processes(self, pictures: Pictures, batches: list[list[Key]], *, stay: bool) -> Iterator[Batch]:
        order, loading = self._staying.get(pictures) or self._started(pictures, stay=stay)
        order.batches = batches
        yield from loading

    def _started(self, pictures: Pictures, *, stay: bool) -> "tuple[_Order, DataLoader[Any]]":
        order = _Order()
        loading: DataLoader[Any] = DataLoader(
            pictures,  # type: ignore[arg-type]  # torch asks for its own base class
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            prefetch_factor=_AHEAD,
            pin_memory=self.pin_memory,
            persistent_workers=stay,
            multiprocessing_context="fork",  # the decoded pictures are in memory that a fork shares
            worker_init_fn=_ignore_sigterm,
            # Its own: a DataLoader without one takes a number from torch's global stream at every epoch.
            generator=torch.Generator(),
        )
        if stay:
            self._staying[pictures] = order, loading
        return order, loading


def faster(crew: Crew, pictures: Pictures, order: Sequence[Key]) -> tuple[Crew, str]:
    """Return the kind that loads pictures faster, as many of it as `crew` has, and what was measured, for people."""
    half = len(order) // 2
    kinds: tuple[Kind, Kind] = ("threads", "processes")
    crews = [Crew(kind, crew.workers, pin_memory=crew.pin_memory) for kind in kinds]
    rates = [_rate(crew, pictures, keys) for crew, keys in zip(crews, (order[:half], order[half:]), strict=True)]
    chosen, other = crews if rates[1] < _WORTH * rates[0] else reversed(crews)
    other.close()
    said = f"{chosen.workers} {chosen.kind}; pictures a second: " + ", ".join(
        f"{rate:,.0f} by {kind}" for kind, rate in zip(kinds, rates, strict=True)
    )
    return chosen, said


def _rate(crew: Crew, pictures: Pictures, keys: Sequence[Key]) -> float:
    """Return the pictures a second behind the first batch, for which a crew starts."""
    batches = crew.load(pictures, [list(keys[start : start + _PIECE]) for start in range(0, len(keys), _PIECE)])
    next(batches)
    began, seen = time.monotonic(), 0
    for _, labels in batches:
        seen += len(labels)
        if time.monotonic() - began >= _MEASURED:
            break
    return seen / max(time.monotonic() - began, 1e-9)


class _Order(Sampler[list[Key]]):
    """A batch sampler whose batches are set anew before each pass."""

    batches: list[list[Key]]

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _as_it_is(batch: Any) -> Any:
    return batch  # `__getitems__` has made it whole


def _ignore_sigterm(_worker: int) -> None:
    # A drain may signal the whole process group; the training still needs its batch to reach the next step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
