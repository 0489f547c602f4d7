"""What a training runs on: told at the first step of every attempt, so that its result can be told from another's."""

import platform
from contextlib import suppress
from pathlib import Path

from worker import identity, protocol
from worker.training import numerics, trainer

_CPUS = Path("/proc/cpuinfo")


def _cpu_model() -> str:
    """Return the processor's model; its architecture where the kernel does not name one."""
    with suppress(OSError):
        for line in _CPUS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() == "model name":
                return value.strip()
    return platform.machine()


#: Looked up at the import, which a fork server does once: ten milliseconds that no job waits for.
_CPU = _cpu_model()
_VERSIONS = identity.versions()


def here(learner: trainer.Trainer) -> protocol.Environment:
    """Return what this process trains with, once its threads are set and its kernels chosen."""
    used = numerics.Numerics.here(learner.device, learner.kernels)
    return protocol.Environment(
        versions=_VERSIONS,
        device=used.device,
        cpu=_CPU,
        instructions=used.cpu,
        threads=used.threads,
        layout=used.layout,
        precision=used.precision,
        seed=learner.spec.seed,
    )
