"""Where the files of attempts and downloads lie."""

from collections.abc import Iterator
from pathlib import Path

_PREFIX = "attempt-"


def attempt(root: Path, job_id: str, number: int) -> Path:
    """Return the directory of a job's attempt below the artifact root; it is that attempt's alone."""
    return root / job_id / f"{_PREFIX}{number:04d}"


def attempts(job_dir: Path) -> Iterator[tuple[int, Path]]:
    """Yield the attempts that have a directory in that of their job."""
    for path in job_dir.glob(f"{_PREFIX}*"):
        digits = path.name.removeprefix(_PREFIX)
        if digits.isdigit():
            yield int(digits), path


def compiled(data_dir: Path) -> Path:
    """Return where the code lies that was made of networks for trainings that asked for it, a folder for each."""
    return data_dir / "compiled"


def unfinished(data_dir: Path) -> list[Path]:
    """Return what is in the cache for the time of a download only; each name begins with its source's key.

    `worker.data.supply` and `.weights` make them; who looks whether there are any should not have to import it.
    """
    patterns = ("archives/*", "locks/*.progress", "sets/.*", "sources/.*", "weights/*.part", "weights/*.json")
    return [path for pattern in patterns for path in data_dir.glob(pattern)]
