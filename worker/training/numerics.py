"""What decides a number's last bit: device, threads, versions, random generators.

Bit-equality is promised for one CPU type, one set of versions and one thread count. They are fixed at a job's first
step and stored in each checkpoint; a resumed job keeps its thread count, and says so where it cannot.
"""

import os
import platform
import random
from typing import Any

import numpy as np
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field

from orchestrator import errors
from orchestrator.core import states
from worker.data import augment
from worker.training import kernels


class Numerics(kernels.Kernels):
    """Where the numbers of a checkpoint come from."""

    threads: int  #: of the CPU
    device: str  #: cpu, or the GPU's model
    cpu: str  #: the instruction set that torch's kernels use
    software: str
    #: Processes that train together; left out where it is one, as by earlier versions.
    ranks: int = Field(1, exclude_if=lambda ranks: ranks == 1)

    @classmethod
    def here(cls, device: torch.device, used: kernels.Kernels = kernels.DEFAULT, *, ranks: int = 1) -> "Numerics":
        """Return this process's."""
        return cls(
            **used.model_dump(),
            threads=torch.get_num_threads(),
            device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
            cpu=torch.backends.cpu.get_cpu_capability(),
            software=f"Python {platform.python_version()}, torch {torch.__version__}, "
            f"torchvision {torchvision.__version__}",
            ranks=ranks,
        )

    def differences(self, other: "Numerics") -> list[str]:
        """Return what differs, each as `name: here, before there`."""
        before = dict(other)
        differ = [(name, value, before[name]) for name, value in self if value != before[name]]
        return [f"{name}: {_said(value)}, before {_said(then)}" for name, value, then in differ]

    @property
    def kernels(self) -> kernels.Kernels:
        """What the steps were computed with."""
        return kernels.Kernels(**{name: getattr(self, name) for name in kernels.Kernels.model_fields})


def _said(value: object) -> str:
    return str(value) or "none"


def use(device: str, *, threads: int, rank: int = 0) -> torch.device:
    """Set the threads of this process and return its device: `cpu`, or its one of the GPUs that are made visible.

    Raises:
        StageFailed: gpu_error, when the GPU cannot be used.

    """
    torch.set_num_threads(threads)
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise errors.StageFailed(
            f"The GPU {device} cannot be used.",
            reason=states.Reason.GPU_ERROR,
            why="CUDA finds no device.",
            hint="`orch doctor` checks driver and devices.",
        )
    kernels.set_up_gpu()
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def keep_threads(threads: int) -> None:
    """Use as many threads as the checkpoint's run did, where the host has that many cores for us."""
    if threads <= len(os.sched_getaffinity(0)):
        torch.set_num_threads(threads)


def seed(number: int) -> None:
    """Seed every generator of the process from the spec's seed."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - the global generator is what a library may draw from unasked


def seed_step(number: int, *, step: int, rank: int) -> None:
    """Let what a step draws at random depend on seed, step and rank alone: no rank's generator needs to be kept."""
    torch.manual_seed(augment.mixed(number, step, rank))


class Generators(BaseModel):
    """States of the random generators that are no tensors: Python's and NumPy's global ones."""

    model_config = ConfigDict(frozen=True)

    python: tuple[int, tuple[int, ...], float | None]
    numpy: dict[str, Any]


def generators() -> Generators:
    """Return the states of Python's and NumPy's generators."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - as in `seed`
    assert isinstance(numpy_state, dict)  # noqa: S101 - what legacy=False means, said to the type checker
    inner = numpy_state["state"]
    return Generators(python=random.getstate(), numpy=numpy_state | {"state": inner | {"key": inner["key"].tolist()}})


def generator_tensors(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's generators."""
    found = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore_generators(states_: Generators, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set every generator to a state from a checkpoint."""
    random.setstate(states_.python)
    np.random.set_state(states_.numpy)  # noqa: NPY002 - as in `seed`
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
