"""Whether a job would only come to a result that is there: the same spec, data and versions.

Said only where it is sure: where data may have changed, a worker has other versions, or nobody knows what an attempt
trained with, the job is queued.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from orchestrator.core import history, provenance, weights
from orchestrator.core.jobs import Attempt, Job, NewJob, Worker
from orchestrator.core.states import Stage
from orchestrator.service import jobfile, query
from orchestrator.store.base import Store

#: Seconds in which the files of a folder are looked at; one with more of them than that may have changed.
PATIENCE = 0.2


def result(store: Store, new: NewJob) -> Job | None:
    """Return the newest succeeded job whose result a new one would come to again; None where that is not sure."""
    alike = store.results(new.spec.digest())
    if not alike:
        return None
    workers = query.living(store)
    return next((job for job in alike if _starts_alike(job, new) and _stands(store, job, workers)), None)


def _starts_alike(job: Job, new: NewJob) -> bool:
    """Whether both begin with the same weights: a spec names a job, and the checkpoint is one of several."""
    if weights.job(new.spec.weights) is None:
        return True
    return (job.parent, job.start_step) == (new.parent, new.start_step)


def _stands(store: Store, job: Job, workers: Sequence[Worker]) -> bool:
    """Whether a job like this one would come to its result today."""
    attempts = store.attempts(job.id)
    if not _versions_are_those(attempts, workers) or _took_another_course(store, job):
        return False
    return _data_is_that(job, attempts)


def _versions_are_those(attempts: Sequence[Attempt], workers: Sequence[Worker]) -> bool:
    trained = [attempt for attempt in attempts if attempt.first_step is not None]
    known = [attempt.environment.versions for attempt in trained if attempt.environment is not None]
    if not workers or not known or len(known) < len(trained):
        return False
    return not any(provenance.differences(worker.versions, one) for worker in workers for one in known)


def _took_another_course(store: Store, job: Job) -> bool:
    """Whether it was extended while something took its course over the number of epochs: over the first number."""
    return bool(job.spec.courses) and any(event.kind == history.EXTENDED for event in store.events(job.id))


def _data_is_that(job: Job, attempts: Sequence[Attempt]) -> bool:
    """Whether the files on this host that the job was made from are as they were when it looked at them.

    Its last download did so: a retry or an extension goes on with what that found.
    """
    looked = (attempt.started_at for attempt in reversed(attempts) if attempt.stage is Stage.DOWNLOAD)
    since, spec = next(looked, None), job.spec
    if since is None or job.data_hash is None:
        return False
    sources = [] if spec.data_sha256 else [path for path in (jobfile.local_path(spec.data),) if path is not None]
    if weights.is_file(spec.weights) and spec.weights is not None and spec.weights_sha256 is None:
        sources.append(Path(spec.weights))
    return all(_is_older(source, since) for source in sources)


def _is_older(source: Path, since: datetime) -> bool:
    """Whether a file, or every one below a folder, was last changed before a moment; False where that is not known."""
    until, moment = time.monotonic() + PATIENCE, since.timestamp()
    try:
        for found in _below(source):
            if max(found.st_mtime, found.st_ctime) >= moment or time.monotonic() > until:
                return False
    except OSError:  # it is not here: the workers may see it
        return False
    return True


def _below(source: Path) -> Iterator[os.stat_result]:
    yield source.stat()
    folders = [source] if source.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            yield from _stats(entries, folders)


def _stats(entries: Iterable["os.DirEntry[str]"], folders: list[Path]) -> Iterator[os.stat_result]:
    for entry in entries:
        if entry.is_dir():
            folders.append(Path(entry.path))
        yield entry.stat()
