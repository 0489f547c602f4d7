"""What to tell people before they wait for hours: the cost of a recipe on the devices at hand."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core import networks, specs, speed
from orchestrator.core.jobs import Worker
from orchestrator.service import jobfile

#: Training work of two CPU cores, in forward multiply-accumulates a second: 0.2 to 0.4 pictures of 43.5 GMAC.
CPU_MACS_A_SECOND = 13e9

#: Under this many pictures a second, an epoch of a small data set of photographs takes longer than half an hour.
TOO_SLOW = 1.0


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A warning, and the changes to the spec that help; none where a smaller network is needed."""

    warning: str
    changes: dict[str, int]


def absent(spec: specs.JobSpec) -> Iterator[str]:
    """Yield which files of a job are not on this host: the one that trains may have them, or it is a typing error."""
    for name, path in (("data", jobfile.local_path(spec.data)), ("weights", jobfile.local_path(spec.weights or ""))):
        with contextlib.suppress(OSError, ValueError):  # what cannot be looked at, the worker judges
            if path is not None and not path.exists():
                yield f"{name}: there is no {path} on this host. The job fails where its worker's host has none either."


def on_cpu(workers: Iterable[Worker], nvidia: Path = Path("/dev/nvidiactl")) -> bool:
    """Whether the job will train on a CPU: as the workers have it, else as this host has it."""
    devices = [device for worker in workers for device in worker.devices]
    return all(device.lower().startswith("cpu") for device in devices) if devices else not nvidia.exists()


def for_cpu(spec: specs.JobSpec) -> Advice | None:
    """Return what to say about a recipe that a CPU is too slow for, None where it is fine."""
    macs = networks.cost(spec.shape, image_size=spec.image_size, classes=2).macs
    rate = CPU_MACS_A_SECOND / macs
    if rate >= TOO_SLOW:
        return None
    warning = (
        f"{macs / 1e9:.1f} GMAC a picture is much for a CPU: two cores train about {rate:.2g} pictures a second, "
        f"which is {1000 / rate / 3600:.1f} hours for every 1,000."
    )
    smallest = networks.smallest_image(spec.shape)
    changes = {"image_size": max(speed.SMALLER, smallest), "batch_size": max(speed.LARGER_BATCH, spec.batch_size)}
    return Advice(warning=warning, changes=changes if changes["image_size"] < spec.image_size else {})
