"""Names in the folders of artifacts and of data: workers write there, and services look at what lies there."""

from pathlib import Path

_ATTEMPT = "attempt-"

#: The log of an attempt, in its folder: all that stays there beside the checkpoints that are kept.
LOG = "log.txt"

#: The file in an attempt's folder that has the pid of its process.
PID = "pid"

#: Ending of the lock of a worker's device, which is handed on to the processes of the job.
DEVICE = ".device"

#: What there is in the cache of data for the time of a download, and while a job waits that may go on with it.
RESUMABLE = ("archives/*", "weights/*.part", "weights/*.json")

#: What there is in the cache of data for as long as a process works at a source.
MOMENTARY = ("locks/*.progress", "sets/.*", "sources/.*")


def attempt(root: Path, job_id: str, number: int) -> Path:
    """Return the folder of a job's attempt below the artifact root; it is that attempt's alone."""
    return root / job_id / f"{_ATTEMPT}{number:04d}"


def attempt_number(folder: Path) -> int | None:
    """Return of which attempt a folder is, by its name; None where it is of none."""
    digits = folder.name.removeprefix(_ATTEMPT)
    return int(digits) if folder.name.startswith(_ATTEMPT) and digits.isdigit() else None
