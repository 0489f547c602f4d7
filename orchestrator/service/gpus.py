"""Whether torch works with the GPUs of this host: their driver, and the machine code that it was built with.

NVML tells of driver and GPUs without CUDA. What torch was built for a process of its own is asked, and only where there
is a GPU: to import torch takes seconds.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import humanize

from orchestrator import config, errors
from orchestrator.service import asking, checks

#: The oldest driver of each CUDA, by its major number; within one, older drivers serve newer minor versions:
#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}

#: Where torch is had for each CUDA.
_BUILDS = "https://pytorch.org/get-started/locally/"

#: What helps where the driver says that it is broken: most often it was updated under a kernel that has the old one.
_MEND = "See `nvidia-smi`; a driver that was updated wants the host to be started again."

#: As torch names what it was built for: machine code (sm_90, sm_90a) or code that the driver translates (compute_90).
_CODE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as the driver shows it."""

    name: str
    memory: int  #: bytes
    capability: tuple[int, int]  #: compute capability, major and minor


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The driver, and what it shows."""

    version: str
    cuda: tuple[int, int]  #: the newest CUDA that it serves
    gpus: tuple[Gpu, ...]
    lost: tuple[str, ...]  #: what it says of those that it cannot talk to


@dataclass(frozen=True, kw_only=True)
class Build:
    """What this host's torch was built for."""

    version: str
    cuda: str | None
    codes: tuple[str, ...]  #: as in sm_90; none in a build for CPUs

    def serves(self, gpu: Gpu) -> bool:
        """Whether there is code for the GPU: of its major capability and no newer, or such as its driver translates."""
        for kind, major, minor in (found.groups() for found in map(_CODE.fullmatch, self.codes) if found):
            built = int(major), int(minor)
            if built <= gpu.capability and (kind == "compute" or built[0] == gpu.capability[0]):
                return True
        return False


def examine(settings: config.Settings) -> Iterator[checks.Check]:
    """Yield a finding for each GPU, or the one that there is none."""
    if importlib.util.find_spec("pynvml") is None:
        yield _check("not looked for: this host cannot train")
        return
    import pynvml  # noqa: PLC0415 - it comes with the extra `worker` only

    try:
        driver = _driver()
    except pynvml.NVMLError as error:
        yield _check(f"the driver does not answer: {error}", checks.Level.FAIL, _MEND)
        return
    if driver is None or not (driver.gpus or driver.lost):
        yield _check("none: training runs on the CPU")
        return
    for said in driver.lost:
        yield _check(said, checks.Level.FAIL, _MEND)
    yield from _judged(settings, driver)


def _driver() -> Driver | None:
    """Return what the driver says, None where there is none; raises NVMLError where it is broken."""
    import pynvml  # noqa: PLC0415 - the same

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    gpus, lost = [], []
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())  # 13020 is 13.2
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_gpu(pynvml.nvmlDeviceGetHandleByIndex(index)))
            except pynvml.NVMLError as error:
                lost.append(f"GPU {index} cannot be used: {error}")
        version = pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
    return Driver(version=version, cuda=(cuda // 1000, cuda % 1000 // 10), gpus=tuple(gpus), lost=tuple(lost))


def _gpu(handle: Any) -> Gpu:
    import pynvml  # noqa: PLC0415 - the same

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        capability=(int(major), int(minor)),
    )


def _judged(settings: config.Settings, driver: Driver) -> Iterator[checks.Check]:
    build: Build | None = None
    if importlib.util.find_spec("torch") is not None:
        try:
            build = _build(settings)
        except errors.OrchError as error:
            yield checks.failed("torch", error)
    for gpu in driver.gpus:
        memory = humanize.naturalsize(gpu.memory, binary=True)
        found = f"{gpu.name}, {memory}, capability {_dotted(gpu.capability)}, driver {driver.version}"
        trouble = None if build is None else next(_troubles(driver, gpu, build), None)
        if trouble is None:
            yield _check(found)
        else:
            yield _check(f"{found}: {trouble[0]}", checks.Level.FAIL, trouble[1])


def _build(settings: config.Settings) -> Build:
    (answer,) = asking.ask(settings, "worker.training.build", {})
    return Build(version=answer["version"], cuda=answer["cuda"], codes=tuple(answer["codes"]))


def _troubles(driver: Driver, gpu: Gpu, build: Build) -> Iterator[tuple[str, str]]:
    """Yield why torch cannot use a GPU, and what helps, the strongest reason first."""
    if build.cuda is None:
        yield f"torch {build.version} is built for CPUs", f"Install a build for CUDA: {_BUILDS}."
        return
    major = int(build.cuda.split(".")[0])
    if major > driver.cuda[0]:
        told = f"torch {build.version} needs CUDA {major}, this driver serves {_dotted(driver.cuda)} at most"
        oldest = OLDEST_DRIVERS.get(major)
        newer = f"to {oldest} or newer" if oldest else f"to one that serves CUDA {major}"
        yield told, f"Update the driver {newer}, or install a torch for CUDA {driver.cuda[0]}: {_BUILDS}."
    if not build.serves(gpu):
        told = f"torch {build.version} has no code for it, only {_listed(build.codes)}"
        yield (
            told,
            f"Install a build that has: {_BUILDS}. Or leave it out: `orch worker --devices 0` names those to use.",
        )


def _listed(codes: Iterable[str]) -> str:
    return ", ".join(codes) or "for CPUs"


def _dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def _check(found: str, level: checks.Level = checks.Level.OK, fix: str | None = None) -> checks.Check:
    return checks.Check(name="gpu", level=level, found=found, fix=fix)
