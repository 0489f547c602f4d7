"""The devices of this host that a worker may use, each claimed by a lock that all users of the host share."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import pynvml

from orchestrator import config, environ, errors, failpoints, log
from orchestrator.core import resources

_log = log.get("devices")

#: A GPU with less than this share of its memory free has other users.
FREE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as the driver shows it."""

    index: int
    uuid: str
    name: str
    memory: int  #: bytes
    free: int  #: bytes


@dataclass(frozen=True, kw_only=True)
class Device:
    """One slot's device, held by the lock that is open as `locks`."""

    slot: str
    label: str  #: for people
    gpu: Gpu | None  #: None: the CPU
    locks: tuple[int, ...]

    @property
    def offered(self) -> resources.Device:
        """What jobs are told of it."""
        if self.gpu is None:
            return resources.Device(id=self.slot, kind=resources.CPU, name=self.label)
        return resources.Device(id=self.gpu.uuid, kind=resources.GPU, name=self.gpu.name, memory=self.gpu.memory)


def claim(settings: config.Settings) -> list[Device]:
    """Return a device for every slot that `settings.devices` asks for, each locked by this process.

    Raises:
        InvalidSetting: GPUs were asked for by number or with `one`, and there are none that are free.

    """
    wanted = settings.devices.strip().lower()
    if wanted == "none":
        return []
    if wanted == "cpu":
        return _cpu(settings)
    gpus = list_gpus()
    if wanted == "auto" and not gpus:
        return _cpu(settings)
    chosen = _choose(wanted, gpus)
    devices: list[Device] = []
    for gpu in chosen:
        devices += _claim_gpu(gpu, settings)
        if wanted == "one" and devices:
            break
    if not devices:
        raise errors.InvalidSetting(
            "No GPU is free for this worker.",
            why=f"{len(gpus)} GPUs are visible, {len(chosen)} of them fit `{wanted}`; other workers or users hold them."
            if gpus
            else "The driver shows no GPU.",
            hint="Use `--devices cpu` (with compose: the worker-cpu profile), or stop the worker that holds the GPU.",
        )
    return devices


def offer(devices: Iterable[Device], settings: config.Settings) -> resources.Offer:
    """Return what a worker with these devices has for jobs."""
    return resources.Offer(devices=tuple(device.offered for device in devices), labels=settings.label_names)


def list_gpus() -> list[Gpu]:
    """Return the GPUs that the driver shows and CUDA_VISIBLE_DEVICES lets through; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    return visible([gpu for gpu in found if gpu is not None], environ.visible_gpus())


def visible(gpus: list[Gpu], setting: str | None) -> list[Gpu]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES lets through, in its order; it ends at the first unknown.

    Numbers and UUIDs (or prefixes of these) as in
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#env-vars. A part of a GPU (MIG) is unknown.
    """
    if setting is None:
        return gpus
    chosen: list[Gpu] = []
    for word in filter(None, (part.strip() for part in setting.split(","))):
        found = next((gpu for gpu in gpus if word == str(gpu.index) or gpu.uuid.startswith(word)), None)
        if found is None:
            if not word.startswith("-"):  # which is how all are hidden on purpose
                _log.warning("CUDA_VISIBLE_DEVICES ends at what is no whole GPU of this host", named=word)
            break
        chosen.append(found)
    return chosen


def _gpu(index: int) -> Gpu | None:
    """Return the GPU; None for one that is lost, or that a batch system or a container keeps from this process."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Gpu(
            index=index,
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            name=pynvml.nvmlDeviceGetName(handle),
            memory=int(memory.total),
            free=int(memory.free),
        )
    except pynvml.NVMLError as error:
        _log.warning("GPU cannot be used", gpu=index, why=str(error))
        return None


def _choose(wanted: str, gpus: list[Gpu]) -> list[Gpu]:
    if wanted in {"auto", "one"}:
        return gpus
    numbers = wanted.split(",")
    if not all(number.strip().isdigit() for number in numbers):
        raise errors.InvalidSetting(
            f"devices = {wanted!r} cannot be used.", hint="It is auto, one, cpu, none, or GPU numbers such as 0,2."
        )
    return [gpu for number in numbers for gpu in gpus if gpu.index == int(number)]


def _cpu(settings: config.Settings) -> list[Device]:
    return [
        Device(slot=f"cpu.{number}", label="CPU", gpu=None, locks=()) for number in range(settings.slots_per_device)
    ]


def _claim_gpu(gpu: Gpu, settings: config.Settings) -> list[Device]:
    if gpu.free < gpu.memory * FREE_SHARE:
        _log.warning("GPU has other users", gpu=gpu.uuid, free=gpu.free, memory=gpu.memory)
        return []
    devices: list[Device] = []
    for number in range(settings.slots_per_device):
        lock = _lock(settings.lock_dir / f"{gpu.uuid}.{number}")
        if lock is not None:
            label = f"{gpu.name} ({gpu.index})"
            devices.append(Device(slot=f"gpu{gpu.index}.{number}", label=label, gpu=gpu, locks=(lock,)))
    return devices


def _lock(path: Path) -> int | None:
    """Return an open descriptor that holds the lock, None where somebody else does.

    The folder is every user's, as /tmp is. A lock is opened for reading, which is all that any user may do with
    another's; and is made in a step of its own, since the kernel lets nobody open another's file there with O_CREAT.
    """
    failpoints.reach("device.lock")
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o1777)  # a mode given to mkdir would be cut by the umask
    with suppress(FileExistsError):
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(made, 0o444)
        os.close(made)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
