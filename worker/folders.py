"""What lies there of attempts and downloads, by the names of `orchestrator.core.layout`."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.core import layout


def attempts(job_dir: Path) -> Iterator[tuple[int, Path]]:
    """Yield the attempts that have a directory in that of their job."""
    for path in job_dir.glob("*"):
        number = layout.attempt_number(path)
        if number is not None:
            yield number, path


def compiled(data_dir: Path) -> Path:
    """Return where the code lies that was made of networks for trainings that asked for it, a folder for each."""
    return data_dir / "compiled"


def unfinished(data_dir: Path) -> list[Path]:
    """Return what is in the cache for the time of a download only; each name begins with its source's key.

    `worker.data.supply` and `.weights` make them; who looks whether there are any should not have to import it.
    """
    return [path for pattern in (*layout.RESUMABLE, *layout.MOMENTARY) for path in data_dir.glob(pattern)]
