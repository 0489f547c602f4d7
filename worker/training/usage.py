"""What a training takes of its host: CPU, memory, the GPU, and how long it waits for its data.

It is looked at every few seconds and at an epoch's end, from the training process itself: its own figures and those of
the processes that load its pictures. Reading them takes a fraction of a millisecond.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import psutil
import pynvml
import torch

from worker import protocol
from worker.data import makers
from worker.training import report, world

#: Seconds between two looks at memory and GPU.
LOOK_EVERY = 2.0

_Item = TypeVar("_Item")


class Gauge:
    """Measures one epoch's training at a time; `begin`, then `watched` around its batches, then `end`."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = _Gpu.of(device)
        self._process = psutil.Process()
        self.begin()

    def begin(self) -> None:
        """Forget what was measured."""
        self._pace = report.Pace(LOOK_EVERY)
        self._began = time.monotonic()
        self._cpu_before = self._cpu()
        self._waited = 0.0
        self._memory = 0
        self._gpu_shares: list[float] = []
        self._gpu_memory = 0

    def watched(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Pass items on, and count the time that it takes to get them."""
        source = iter(items)
        while True:
            asked = time.monotonic()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._waited += time.monotonic() - asked
            yield item
            if self._pace.due():
                self._look()

    def end(self) -> protocol.Usage:
        """Return what the epoch has taken so far."""
        self._look()
        elapsed = max(time.monotonic() - self._began, 1e-9)
        # Where loading processes have come or gone meanwhile, their share is not known: never less than nothing.
        spent = max(0.0, self._cpu() - self._cpu_before)
        return protocol.Usage(
            cores=spent / elapsed,
            memory=self._memory,
            waiting=min(1.0, self._waited / elapsed),
            gpu=sum(self._gpu_shares) / len(self._gpu_shares) if self._gpu_shares else None,
            gpu_memory=self._gpu_memory or None,
        )

    def _processes(self) -> list[psutil.Process]:
        """Return this process and those that load its pictures."""
        return [self._process, *makers.processes()]

    def _cpu(self) -> float:
        """Return the seconds of CPU that all of them have taken."""
        spent = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                spent += times.user + times.system
        return spent

    def _look(self) -> None:
        memory = 0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory += process.memory_info().rss
        self._memory = max(self._memory, memory)
        if self._gpu is not None and (seen := self._gpu.look()) is not None:
            self._gpu_shares.append(seen[0])
            self._gpu_memory = max(self._gpu_memory, seen[1])


def together(own: protocol.Usage, ranks: world.World) -> protocol.Usage:
    """Return what all ranks have taken: their cores and memory; the longest wait, and the mean work of their GPUs.

    The memory is the sum of what each took at most, at whichever moment; pages that a fork shares count for each.
    """
    if ranks.share.ranks == 1:
        return own
    gpu = own.gpu is not None and own.gpu_memory is not None
    values = (own.cores, own.memory, own.waiting, gpu, own.gpu or 0.0, own.gpu_memory or 0)
    found = ranks.gathered(torch.tensor(values, dtype=torch.float64))
    cores, memory, _, gpus, shares, gpu_memory = found.sum(dim=0).tolist()
    return protocol.Usage(
        cores=cores,
        memory=int(memory),
        waiting=float(found[:, 2].max()),
        gpu=shares / gpus if gpus else None,
        gpu_memory=int(gpu_memory) if gpus else None,
    )


class _Gpu:
    """The GPU that a training uses, as the driver shows it; nothing of it where there is no driver."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    @classmethod
    def of(cls, device: torch.device) -> "_Gpu | None":
        if device.type != "cuda":
            return None
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            return cls(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except pynvml.NVMLError:
            return None

    def look(self) -> tuple[float, int] | None:
        """Return the share of time in which it worked, 0 to 1, and its memory in use, bytes."""
        try:
            share = pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100
            return share, int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except pynvml.NVMLError:
            return None
