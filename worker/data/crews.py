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

#: Batches that each of a crew loads in a turn, of so many pictures.
_BATCHES, _PIECE = 6, 4
#: Seconds after which no further turn begins.
_MEASURED = 0.2
#: Threads take less memory and start at once: processes have to be so much faster; from so much on, one turn will do.
_WORTH, _PLAIN = 1.1, 1.25


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

    Both load the same ones in turns, after processes have loaded these once: where pictures are kept decoded, that is
    how all epochs but the first one go. The best turn of each counts, since what else runs on the host makes none
    faster. Turns end once processes are plainly faster. If that is wrong it costs memory; what wrongly speaks for
    threads, for one turn, would cost time in every epoch, since a host remembers who was chosen.
    """
    threads, processes = (Crew(kind, crew.workers, pin_memory=crew.pin_memory) for kind in ("threads", "processes"))
    some = order[: _BATCHES * crew.workers * _PIECE]
    _rate(processes, pictures, some)
    by_threads = by_processes = 0.0
    until = time.monotonic() + _MEASURED
    while True:
        by_threads = max(by_threads, _rate(threads, pictures, some))
        by_processes = max(by_processes, _rate(processes, pictures, some))
        if by_processes >= _PLAIN * by_threads or time.monotonic() >= until:
            break
    # Of a single batch no rate is known: 0 by both.
    chosen, other = (processes, threads) if by_processes > _WORTH * by_threads else (threads, processes)
    other.close()
    measured = f"{by_threads:,.0f} by threads, {by_processes:,.0f} by processes"
    return chosen, f"{chosen.workers} {chosen.kind}; pictures a second: {measured}"


def _rate(crew: Crew, pictures: Pictures, keys: Sequence[Key]) -> float:
    """Return how many pictures a second come behind the first batch, for which a crew starts."""
    pieces = [list(keys[start : start + _PIECE]) for start in range(0, len(keys), _PIECE)]
    batches = crew.load(pictures, pieces, stay=True)
    next(batches, None)
    began = time.monotonic()
    count = sum(len(labels) for _, labels in batches)
    return count / max(time.monotonic() - began, 1e-9)
