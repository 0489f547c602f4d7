"""Where the files of an attempt lie."""

from pathlib import Path


def attempt(root: Path, job_id: str, number: int) -> Path:
    """Return the directory of a job's attempt below the artifact root; it is that attempt's alone."""
    return root / job_id / f"attempt-{number:04d}"
