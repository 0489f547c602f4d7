"""What `--json` prints of the data sets of a host."""

from datetime import datetime

from pydantic import Field

from orchestrator.service import views


class HeldPart(views.Part):
    """A data set on this host."""

    hash: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    counts: dict[str, int] = Field(description="pictures per split: train, val")
    bytes: int
    decoded: int = Field(0, description="bytes of its pictures' pixels, which trainings have kept")
    shared: int = Field(description="pictures of val whose bytes train has too")
    path: str
    unpacked: bool = Field(description="in the cache; else a folder that is used where it is")
    whole: bool = Field(description="its files are as they were admitted, by path, size and time")
    used_at: datetime
    jobs: tuple[str, ...] = Field(description="that used it, the newest first, a hundred at most")
    live: tuple[str, ...] = Field(description="jobs that use it and have not ended")


class HeldPayload(views.Payload):
    """One data set."""

    dataset: HeldPart


class HeldsPayload(views.Payload):
    """The data sets of this host."""

    datasets: tuple[HeldPart, ...]


class SharedPart(views.Part):
    """Pictures of both splits with the very same bytes."""

    train: tuple[str, ...]
    val: tuple[str, ...]


class ExaminedPayload(views.Payload):
    """What reading every picture of a data set gave."""

    held: HeldPart
    found: str = Field(description="the content hash as it is now")
    sound: bool = Field(description="the hash stands, and every picture can be read")
    faults: tuple[str, ...]
    by_class: dict[str, tuple[int, ...]] = Field(description="pictures per split, in the order of the classes")
    duplicates: tuple[SharedPart, ...]
