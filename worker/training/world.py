"""What the ranks of a training say to each other while they train: sums, and whether to stop.

On CPUs by gloo, on GPUs by NCCL, which was never run: https://docs.pytorch.org/docs/stable/distributed.html. Every rank
makes the same calls in the same order; one that waits for a rank longer than `patience` gives up.
"""

import datetime as dt
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from orchestrator import environ
from worker.data import shares

#: How far each rank has come, for all to see: memory that a fork shares.
Ticks = npt.NDArray[np.int64]


class Parted(Exception):
    """Another rank is gone, or does not come."""


class Silent(Parted):
    """Another rank did not come for as long as it is waited for."""


class World:
    """The ranks that train together, seen from one of them; by default of one that is alone."""

    def __init__(self, share: shares.Share = shares.ALONE, *, patience: float = 0, ticks: Ticks | None = None) -> None:
        self.share = share
        self._patience = patience
        self._ticks = np.zeros(share.ranks, np.int64) if ticks is None else ticks

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for all."""
        return self.share.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of all ranks' values, in place of them: the same bits on every rank."""
        if self.share.ranks > 1:
            began = time.monotonic()
            try:
                distributed.all_reduce(values)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise  # of this rank itself: a GPU tells of what went wrong at whichever call comes next
            except RuntimeError as error:  # gloo and NCCL have no word of their own for a peer that is gone
                waited = time.monotonic() - began >= self._patience
                raise (Silent if waited else Parted)(str(error)) from error
        return values

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values (N) of every rank: (ranks, N)."""
        found = values.new_zeros(self.share.ranks, len(values))
        found[self.share.rank] = values
        return self.total(found)

    def dealt(self, values: Sequence[Sequence[float]], *, columns: int, turn: int = 0) -> list[list[float]]:
        """Return the values of every batch, in the order of the batches; each rank has those of what it was dealt."""
        batches = int(self.total(torch.tensor([len(values)])))
        found = torch.zeros(batches, columns, dtype=torch.float64)
        for index, row in zip(self.share.dealt(batches, turn=turn), values, strict=True):
            found[index] = torch.tensor(row, dtype=torch.float64)
        rows: list[list[float]] = self.total(found).tolist()
        return rows

    def agreed(self, wish: bool) -> bool:
        """Return the wish of the rank that leads: the same for all at the same look."""
        self._ticks[self.share.rank] += 1
        return bool(self.total(torch.tensor([self.leads and wish], dtype=torch.uint8)))

    def behind(self) -> int | None:
        """Return which rank the others wait for, as far as that can be told."""
        least = self._ticks.min()
        found = np.flatnonzero(self._ticks == least)
        return int(found[0]) if len(found) == 1 else None


ALONE = World()


def join(
    share: shares.Share, store: str, *, device: torch.device, patience: float, ticks: Ticks | None = None
) -> World:
    """Meet the other ranks at the file `store`, and return them; `patience` in seconds.

    Raises:
        Parted: they did not come.

    """
    environ.talk_on_loopback()
    timeout = dt.timedelta(seconds=patience)
    try:
        met_at = distributed.FileStore(store, share.ranks)  # type: ignore[attr-defined]  # torch does not list it
        met_at.set_timeout(timeout)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=met_at,
            rank=share.rank,
            world_size=share.ranks,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise Parted(str(error)) from error
    return World(share, patience=patience, ticks=ticks)


def leave(device: torch.device) -> None:
    """Part from the other ranks, where there are any.

    On GPUs that is left to the end of the process: NCCL's ranks would have to part at once, and who is last may wait
    for ever. Nothing is under way there, since all sums were read.
    """
    if device.type == "cpu" and distributed.is_initialized():
        distributed.destroy_process_group()
