"""What a job demands of the host that trains it, what a worker offers, and whether the one meets the other.

The claim, `why` and the note at submit all go by `Demand.unmet`. A demand says where a job runs, not what it computes:
it is no part of the spec, but for the number of devices.
"""

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from orchestrator import errors
from orchestrator.core import masking
from orchestrator.core.states import Stage

Kind = Literal["cpu", "gpu"]

#: Words for a device that stand for a kind; any other one is a part of a GPU's name.
CPU: Kind = "cpu"
GPU: Kind = "gpu"

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]i?)b?", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:=+-]{0,99}")
_DEVICE = re.compile(r"[a-z0-9][a-z0-9 ._/+-]{0,99}")

#: Labels of one job or worker: PostgreSQL indexes no more than 2,700 bytes of a job.
MOST_LABELS = 12

#: Less memory and more than any GPU has; beyond these lies a slip of the finger, such as 40 for 40GB.
_LEAST_MEMORY, _MOST_MEMORY = 10**6, 10**15


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one slot of a worker works on. Slots that share a GPU name the same one."""

    id: str  #: of the worker's devices; a GPU's UUID
    kind: Kind
    name: str  #: the GPU's, as its driver has it
    memory: int | None = None  #: bytes of the GPU, where that is known


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a worker has."""

    devices: tuple[Device, ...] = ()  #: one entry a slot
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a job demands of its worker: so many different devices of one host, all of which are as it says."""

    gpus: int = 1  #: devices that train it together
    device: str | None = None  #: cpu, gpu, or a part of the GPU's name in lower case
    gpu_memory: int | None = None  #: bytes that each GPU has at least
    labels: tuple[str, ...] = ()  #: all of which the worker has, sorted

    @property
    def text(self) -> str:
        """Its one way to be written down; nothing where it demands no more than a device. `of` reads it."""
        given = {name: value for name, value in asdict(self).items() if value != getattr(ANY, name)}
        return json.dumps(given, sort_keys=True, separators=(",", ":")) if given else ""

    def said(self) -> tuple[str, ...]:
        """Return the parts of it in words, none where it demands no more than a device."""
        return (
            *((f"{self.gpus} devices together",) if self.gpus > 1 else ()),
            *((f"device {self.device}",) if self.device else ()),
            *((f"{size(self.gpu_memory)} of GPU memory",) if self.gpu_memory else ()),
            *(f"label {label}" for label in self.labels),
        )

    def at(self, stage: Stage) -> "Demand":
        """Return what is demanded at a stage: one device measures what several have trained, and any host downloads."""
        if stage is Stage.DOWNLOAD:
            return ANY
        return self if stage is Stage.TRAIN else replace(self, gpus=1)

    def unmet(self, stage: Stage, offer: Offer) -> tuple[str, ...]:
        """Return why a worker can never run the stage, in words behind its name; nothing where it can.

        A download demands nothing: any host may fetch what another one trains on, which fetches what it lacks.
        """
        if stage is Stage.DOWNLOAD:
            return ()
        lacking = [label for label in self.labels if label not in offer.labels]
        labels = (f"lacks the label {', '.join(lacking)}",) if lacking else ()
        devices = _unmet_by(self.at(stage), offer.devices)
        return (*labels, devices) if devices else labels

    def is_met_by(self, offer: Offer) -> bool:
        """Whether a worker has all of it for a training."""
        return not self.unmet(Stage.TRAIN, offer)

    def fits(self, device: Device) -> bool:
        """Whether a device is as it says."""
        return self.is_of_kind(device) and (self.gpu_memory is None or (device.memory or 0) >= self.gpu_memory)

    def is_of_kind(self, device: Device) -> bool:
        """Whether a device is as it says but for its memory."""
        if self.device is None:
            return self.gpu_memory is None or device.kind == GPU
        if self.device in {CPU, GPU}:
            return device.kind == self.device
        return device.kind == GPU and self.device in device.name.lower()


#: A job that demands nothing but a device, as nearly all do.
ANY = Demand()

#: One CPU slot, and no label.
ONE_CPU = Offer(devices=(Device(id="cpu.0", kind=CPU, name="CPU"),))


@functools.lru_cache(maxsize=1024)
def of(text: str) -> Demand:
    """Return the demand that was written down as this text."""
    given = json.loads(text) if text else {}
    return Demand(**given | {"labels": tuple(given.get("labels", ()))})


def changed(
    demand: Demand, *, device: str | None, gpu_memory: str | int | None, labels: Iterable[str] | None
) -> Demand:
    """Return the demand with the parts that are given in place of its own; raises `errors.InvalidSpec`."""
    return parse(
        device=demand.device if device is None else device,
        gpu_memory=demand.gpu_memory if gpu_memory is None else gpu_memory,
        labels=demand.labels if labels is None else labels,
    )


def parse(*, device: str | None = None, gpu_memory: str | int | None = None, labels: Iterable[str] = ()) -> Demand:
    """Return the demand that a person has written; raises `errors.InvalidSpec` for what can be none.

    Memory is text such as 10GB or 10GiB, or a number of bytes. An empty text demands nothing.
    """
    demand = Demand(
        device=_device(device) if device else None,
        gpu_memory=_memory(gpu_memory) if gpu_memory or gpu_memory == 0 else None,
        labels=parse_labels(labels),
    )
    if demand.device == CPU and demand.gpu_memory is not None:
        raise errors.InvalidSpec(
            "The job cannot be run: gpu_memory is of GPUs, and the device is cpu.", hint="Leave one of them out."
        )
    return demand


def parse_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels in order, each once; raises `errors.InvalidSpec` for what can be none."""
    found = sorted({label.strip() for label in labels} - {""})
    if len(found) > MOST_LABELS:
        raise errors.InvalidSpec(
            f"{len(found)} labels are too many.",
            why=f"A job or worker has {MOST_LABELS} of them at most.",
            hint="Leave out those that others imply.",
        )
    for label in found:
        if not _LABEL.fullmatch(label):
            raise errors.InvalidSpec(
                f"{masking.value(label)} cannot be a label.",
                why="A label has 1 to 100 letters, digits and . _ / : = + -, and begins with a letter or digit.",
                hint="Labels are like bigdisk or lab=a.",
            )
    return tuple(found)


def size(count: int) -> str:
    """Return bytes as makers of GPUs count them."""
    return f"{count / 10**9:.3g} GB"


def offered(*, slots: tuple[Device, ...], devices: tuple[str, ...], labels: tuple[str, ...]) -> Offer:
    """Return what a worker has for jobs, guessed by what its devices are called where it does not tell."""
    return Offer(devices=slots or tuple(_guessed(number, name) for number, name in enumerate(devices)), labels=labels)


def _guessed(number: int, label: str) -> Device:
    """Return the device of a slot of which a worker has told no more than a label for people, as older ones do."""
    if label.lower().startswith(CPU):
        return Device(id=f"cpu.{number}", kind=CPU, name="CPU")
    return Device(id=label, kind=GPU, name=label)


def _unmet_by(demand: Demand, devices: Iterable[Device]) -> str | None:
    there = {device.id: device for device in devices}
    if not there:
        return "has no device to train on"
    kind = "CPU slot" if demand.device == CPU else "GPU"
    named = kind if demand.device in {None, CPU, GPU} else f"GPU named {demand.device}"
    alike = [device for device in there.values() if demand.is_of_kind(device)]
    if not alike:
        return f"has no {named}: it has {', '.join(sorted({device.name for device in there.values()}))}"
    fitting = [device for device in alike if demand.fits(device)]
    if not fitting:
        most = max(device.memory or 0 for device in alike)
        return f"has no {named} with {size(demand.gpu_memory or 0)}: the largest has {size(most)}"
    if len(fitting) < demand.gpus:
        such = "such devices" if demand.device or demand.gpu_memory else "devices"
        return f"has {len(fitting)} {such}, and the job trains on {demand.gpus} together"
    return None


def _device(text: str) -> str:
    word = " ".join(text.lower().split())
    if not _DEVICE.fullmatch(word):
        raise errors.InvalidSpec(
            f"{masking.value(text)} cannot be a device.", hint="It is cpu, gpu, or a part of a GPU's name such as a100."
        )
    return word


def _memory(given: str | int) -> int:
    found = _SIZE.fullmatch(given.strip()) if isinstance(given, str) else None
    count = round(float(found[1]) * _UNITS[found[2].lower()]) if found else given
    if not isinstance(count, int) or isinstance(count, bool) or not _LEAST_MEMORY <= count <= _MOST_MEMORY:
        raise errors.InvalidSpec(
            f"gpu_memory = {masking.value(given)}: it is no amount of memory",
            hint="Give a number with its unit, such as 10GB or 16GiB.",
        )
    return count
