"""What ended attempts, deleted jobs and broken downloads leave on this host, and how it is cleared.

The checkpoints of attempts stay as long as they are kept.

Attempts that come later are never touched: a process that was frozen and clears up late must not harm its successor.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from orchestrator import config, errors, failpoints, log
from orchestrator.core import jobs, layout, specs, states
from orchestrator.store import artifacts, base
from worker import folders
from worker.launcher import kill_leftover

_log = log.get("remains")

_AT_ONCE = 100  #: jobs that one query reads


def files(root: Path, checkpoints: Iterable[jobs.Checkpoint]) -> set[Path]:
    """Return where the checkpoints lie."""
    return {root / checkpoint.path for checkpoint in checkpoints}


def ended(job: jobs.Job) -> int:
    """Return the last attempt of the job that has ended."""
    return job.attempt - 1 if job.worker is not None else job.attempt


def superfluous(root: Path, job: jobs.Job, needed: set[Path], *, up_to: int) -> Iterator[Path]:
    """Yield what the job's attempts up to `up_to` have left: all but `needed` files and the newest attempt's log."""
    for number, directory in folders.attempts(root / job.id):
        if number > up_to:
            continue
        if number == job.attempt or any(file.is_relative_to(directory) for file in needed):
            kept = needed | {directory / layout.LOG}
            yield from (path for path in artifacts.files_below(directory) if path not in kept)
        else:
            yield directory


def clear(root: Path, job: jobs.Job, needed: set[Path], *, up_to: int) -> None:
    """Remove what is superfluous of the job's attempts up to `up_to`.

    A process that still works for one of them is killed first.
    """
    for number, directory in folders.attempts(root / job.id):
        if number <= up_to:
            kill_leftover(directory)
    for path in superfluous(root, job, needed, up_to=up_to):
        if path.is_dir():
            failpoints.reach("attempt.sweep")
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                failpoints.reach("attempt.tidy")
                path.unlink()


def clear_ended(root: Path, store: base.Store, job_id: str, *, up_to: int) -> None:
    """Clear the job's attempts up to `up_to`, which has ended; by what the database keeps, if it is in reach."""
    with contextlib.suppress(errors.Unavailable, errors.NotFound):
        clear(root, store.get(job_id), files(root, store.checkpoints(job_id)), up_to=up_to)


def clear_all(root: Path, store: base.Store, *, over: Callable[[], bool] = lambda: False) -> None:
    """Clear the ended attempts of every job below the root: whoever should have done so may have died over it.

    Between two jobs it asks whether it is `over`.
    """
    names = [folder.name for folder in root.glob("*") if any(folders.attempts(folder))]
    for start in range(0, len(names), _AT_ONCE):
        if over():
            return
        with contextlib.suppress(errors.Unavailable):
            for job in store.jobs(jobs.JobFilter(ids=tuple(names[start : start + _AT_ONCE]))):
                if over():
                    return
                clear(root, job, files(root, store.checkpoints(job.id)), up_to=ended(job))


def sweep(store: base.Store, settings: config.Settings) -> None:
    """Remove the files of deleted jobs and what no job needs of broken downloads; raises DatabaseUnavailable."""
    for job_id in artifacts.sweep(store, settings.artifact_dir):
        _log.info("removed the files of a deleted job", job=job_id)
    clear_downloads(store, settings)


def clear_downloads(store: base.Store, settings: config.Settings, *, of: specs.JobSpec | None = None) -> None:
    """Remove what no job needs of broken downloads, or of those `of` a spec; raises DatabaseUnavailable."""
    if left := folders.unfinished(settings.data_dir):
        from worker.data import supply  # noqa: PLC0415 - rarely needed, and it brings an HTTP client and Pillow along

        if of is not None:
            left = supply.wanted_by(of, left)
        if supply.at_rest(left, settings=settings):  # else it is work under way: no need to read thousands of jobs
            wanting = store.jobs(jobs.JobFilter(states=tuple(states.MAY_GO_ON)))
            supply.clear_up(left, [job.spec for job in wanting], settings=settings)
