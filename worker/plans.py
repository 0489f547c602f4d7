"""What a node tells each of its slots: one line on its standard input. Without Celery, which a slot alone needs."""

from pathlib import Path

from pydantic import BaseModel

from orchestrator.core import jobs, resources, states
from worker.devices import Device

#: What a slot for downloads works on, for people.
DOWNLOAD = "download"


class Plan(BaseModel):
    """What a slot is told by its node."""

    slot: str  #: its name, such as cpu.0 or download.1
    worker: jobs.WorkerIdentity
    stages: tuple[states.Stage, ...]  #: the first that has something eligible is served first
    devices: tuple[Device, ...]  #: of all slots of the worker, with inherited descriptors; none for downloads
    offer: resources.Offer  #: what its worker has
    locks: Path  #: beginning of the files that slots lock
    threads: int
    artifact_root: str
    fork_server: Path
    permits: Path | None
