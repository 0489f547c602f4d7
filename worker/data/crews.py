"""Who loads batches: the thread that asks, other threads, or processes. No bit of a batch depends on it.

Threads share the interpreter lock: decoding and resizing leave it, and wait to have it back. Processes share no more
than the memory that they make batches in, and each is copied from there. Which is faster depends on the host and on the
pictures, so it is measured.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from worker.data.makers import AHEAD, Batch, Key, Makers, Pictures

__all__ = ["Batch", "Crew", "Key", "Kind", "faster"]

Kind = Literal["threads", "processes"]

#: Seconds for which each kind is measured, in batches of so many pictures.
_MEASURED, _PIECE = 0.2, 4
#: Batches that each of a crew loads at least, however long they take.
_LEAST = 4
#: Threads take less memory and start at once: processes have to be so much faster.
_WORTH = 1.1


class Crew:
    """So many threads or processes; with none of them, the thread that asks does it.

    Processes end with the training that started them; the signal of a drain does not end them.
    """

    def __init__(self, kind: Kind, workers: int, *, pin_memory: bool) -> None:
        self.kind = kind
        self.workers = workers
        self.pin_memory = pin_memory
        self._staying: dict[Pictures, Makers] = {}
        self._passing: set[Makers] = set()  #: of a pass under way, and with it no more
        self._pools: set[ThreadPoolExecutor] = set()  #: likewise

    def load(self, pictures: Pictures, batches: list[list[Key]], *, stay: bool = False) -> Iterator[Batch]:
        """Yield the batches, in order; processes `stay` for the next pass over these pictures."""
        if not batches:  # a pass that goes on behind its last step, or a rank that none is left for
            return
        if self.kind == "processes" and self.workers:
            yield from self._by_processes(pictures, batches, stay=stay)
        elif self.workers:
            yield from self._by_threads(pictures, batches)
        else:
            yield from (self._made(pictures, keys) for keys in batches)

    def close(self) -> None:
        """End all that loads, of a pass as well that an error has left: it would still add to what is kept decoded."""
        while self._pools:
            self._pools.pop().shutdown(cancel_futures=True)
        # The youngest first: each process keeps the pipes of those that were started before it open.
        for makers in (*self._passing, *reversed(self._staying.values())):
            makers.close()
        self._staying.clear()
        self._passing.clear()

    def _by_threads(self, pictures: Pictures, batches: list[list[Key]]) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.workers, "loader")
        self._pools.add(pool)
        under_way: deque[Future[Batch]] = deque()
        try:
            for keys in batches:
                under_way.append(pool.submit(self._made, pictures, keys))
                if len(under_way) > AHEAD * self.workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            self._pools.discard(pool)

    def _made(self, pictures: Pictures, keys: list[Key]) -> Batch:
        images, labels = pictures.__getitems__(keys)
        return (images.pin_memory(), labels.pin_memory()) if self.pin_memory else (images, labels)

    def _by_processes(self, pictures: Pictures, batches: list[list[Key]], *, stay: bool) -> Iterator[Batch]:
        largest = max(map(len, batches))
        there = self._staying.get(pictures)
        if there is not None and there.largest < largest:  # it began with the rest of an epoch
            self.close()
            there = None
        makers = there or Makers(pictures, self.workers, largest=largest)
        if stay:
            self._staying[pictures] = makers
        else:
            self._passing.add(makers)
        try:
            yield from makers.load(batches, pin_memory=self.pin_memory)
        finally:
            if not stay:
                self._passing.discard(makers)
                makers.close()


def faster(crew: Crew, pictures: Pictures, order: Sequence[Key]) -> tuple[Crew, str]:
    """Return the kind that loads pictures faster, as many of it as `crew` has, and what was measured, for people.

    Both load the same ones, after these were loaded once: where pictures are kept decoded, that is how all epochs but
    the first one go. Processes that are chosen stay for the first of them.
    """
    kinds: tuple[Kind, Kind] = ("threads", "processes")
    crews = [Crew(kind, crew.workers, pin_memory=crew.pin_memory) for kind in kinds]
    seen, _ = _loaded(crews[0], pictures, order)
    again = order[: max(seen, _LEAST * crew.workers * _PIECE)]
    rates = [count / max(seconds, 1e-9) for count, seconds in (_loaded(one, pictures, again) for one in crews)]
    chosen, other = crews if rates[1] < _WORTH * rates[0] else reversed(crews)
    other.close()
    said = f"{chosen.workers} {chosen.kind}; pictures a second: " + ", ".join(
        f"{rate:,.0f} by {kind}" for kind, rate in zip(kinds, rates, strict=True)
    )
    return chosen, said


def _loaded(crew: Crew, pictures: Pictures, keys: Sequence[Key]) -> tuple[int, float]:
    """Return how many pictures came behind the first batch, for which a crew starts, and in how many seconds."""
    pieces = [list(keys[start : start + _PIECE]) for start in range(0, len(keys), _PIECE)]
    batches = crew.load(pictures, pieces, stay=True)
    next(batches)
    began, seen = time.monotonic(), 0
    for _, labels in batches:
        seen += len(labels)
        if time.monotonic() - began >= _MEASURED:
            break
    return seen, time.monotonic() - began
