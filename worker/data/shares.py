"""Which pictures of a step each rank learns from, where several train together.

All ranks know the seeded order, so their batches are those of one process: each takes a run of neighbours of every
batch, as even as the runs can be. Of passes without learning each takes whole batches, in turns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of one rank; by default of one that is alone, whose part is all."""

    rank: int = 0
    ranks: int = 1

    def of(self, count: int) -> range:
        """Return the places of its run in a batch of so many pictures; an empty one where there are too few."""
        return range(self.rank * count // self.ranks, (self.rank + 1) * count // self.ranks)

    def loaded(self, batches: Sequence[int], *, neighbours: bool) -> list[int]:
        """Return the places in a step to be loaded; `batches` are the sizes of the step's.

        With `neighbours` the picture before each run comes along, which the run's first one is mixed with. A rank
        without any picture loads the first, to have one of the right shape.
        """
        count = sum(batches)
        found: list[int] = []
        for run in self._runs(batches):
            if neighbours and run:
                found.append((run.start - 1) % count)
            found += run
        return found or [0]

    def learnt(self, batches: Sequence[int], *, neighbours: bool) -> list[int]:
        """Return which of those loaded it learns from."""
        found: list[int] = []
        place = 0
        for run in self._runs(batches):
            place += neighbours and len(run) > 0
            found += range(place, place + len(run))
            place += len(run)
        return found

    def sizes(self, batches: Sequence[int]) -> list[int]:
        """Return how many pictures of each batch it learns from."""
        return [len(run) for run in self._runs(batches)]

    def dealt(self, batches: int, *, turn: int = 0) -> range:
        """Return which of so many batches it takes whole; another `turn` gives it others."""
        return range((self.rank + turn) % self.ranks, batches, self.ranks)

    def rounds(self, batches: int) -> int:
        """Return the largest number of batches that a rank is dealt."""
        return -(-batches // self.ranks)

    def _runs(self, batches: Sequence[int]) -> Iterator[range]:
        start = 0
        for count in batches:
            own = self.of(count)
            yield range(start + own.start, start + own.stop)
            start += count


#: Of a training by one process.
ALONE = Share()
