"""What lies on this host and nobody needs any more: files and processes of attempts, nodes and downloads that ended.

Only what is at rest is judged: the folder of a running attempt is its own, a lock that is held is somebody's.
"""

import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator import config, draining, sockets
from orchestrator.core import layout, states
from orchestrator.core.findings import Finding, Kind
from orchestrator.core.history import History
from orchestrator.core.jobs import Checkpoint, Job
from orchestrator.store import artifacts, base


def checkpoints(settings: config.Settings, history: History) -> Iterator[Finding]:
    """Yield the listed checkpoints that are not whole on disk; nothing where this host has not their folder."""
    if history.job.artifact_root is None or history.job.artifact_root != artifacts.known_id(settings.artifact_dir):
        return
    for point in history.kept:
        fault = _fault(settings.artifact_dir, point)
        if fault is not None:
            yield history.finding(Kind.CHECKPOINT, f"{point.path}: {fault}")


def of_job(settings: config.Settings, history: History) -> Iterator[Finding]:
    """Yield what ended attempts have left in the job's folder or still run there."""
    job, root = history.job, settings.artifact_dir
    kept = {root / point.path for point in history.kept}
    for folder in sorted((root / job.id).glob("*")):
        number = layout.attempt_number(folder)
        if job.state is states.JobState.RUNNING and number == job.attempt:
            continue
        yield from _processes(history, folder)
        if number != job.attempt and not any(path.is_relative_to(folder) for path in kept):
            yield history.finding(Kind.LEFTOVER, f"{folder.relative_to(root)}: no checkpoint is kept in it")
            continue
        for file in sorted(artifacts.files_below(folder)):
            if file not in kept and file != folder / layout.LOG:
                yield history.finding(Kind.LEFTOVER, f"{file.relative_to(root)}: nobody needs it")


def of_nobody(settings: config.Settings, store: base.Store, jobs: Iterable[Job]) -> Iterator[Finding]:
    """Yield what belongs to no job: folders of deleted jobs, files of dead nodes, remains of downloads.

    The folder of a job that the database has never heard of may be another installation's.
    """
    root = settings.artifact_dir
    for job_id in sorted(store.deleted([path.name for path in root.glob("*") if path.is_dir()])):
        yield _leftover(root / job_id, "its job was deleted")
    for path in sorted(root.glob(f"{artifacts.ROOT_ID_FILE}.*")):
        yield _leftover(path, "a node died when it named the folder")
    yield from _of_nodes(settings)
    yield from _of_downloads(settings, list(jobs))


def _of_nodes(settings: config.Settings) -> Iterator[Finding]:
    """Yield what nodes, fork servers and brokers that died have left in the run folder."""
    run = settings.run_dir
    if not _held(run / "node.lock"):
        for path in (run / "node.pid", draining.path(settings)):
            if path.exists():
                yield _leftover(path, "its node is dead")
    found = sockets.folder(settings).glob("fork-*.sock")
    for path in (*found, *run.glob("*.permits"), *(run / "living").glob("*")):
        if not _held(run / "living" / path.stem.rpartition("-")[2]):
            yield _leftover(path, "its node is dead")
    broker = sockets.broker(settings)
    if broker.exists() and not _held(run / "broker.lock"):
        yield _leftover(broker, "its server is dead")


def _of_downloads(settings: config.Settings, jobs: list[Job]) -> Iterator[Finding]:
    """Yield what downloads that nobody works at, or will go on with, have left in the cache of data sets."""
    data = settings.data_dir
    goes_on = any(job.state in states.MAY_GO_ON for job in jobs)  # at any stage: another host may need the data anew
    patterns = (*layout.MOMENTARY, *(() if goes_on else layout.RESUMABLE))
    for path in sorted(path for pattern in patterns for path in data.glob(pattern)):
        source = path.name.removeprefix(".").partition(".")[0]
        if not _held(data / "locks" / f"{source}.lock"):
            yield _leftover(path, "nobody works at it")


def _fault(root: Path, point: Checkpoint) -> str | None:
    path = root / point.path
    if not path.resolve().is_relative_to(root.resolve()):
        return "it lies outside of the artifact folder"
    try:
        if path.stat().st_size != point.bytes:
            return f"it has {path.stat().st_size:,} bytes, not {point.bytes:,}"
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == point.sha256
    except OSError as error:
        return error.strerror or str(error)
    return None if same else "its sha256 is another"


def _processes(history: History, folder: Path) -> Iterator[Finding]:
    """Yield the process that still works in an ended attempt's folder."""
    pid = process_in(folder)
    if pid is not None:
        yield history.finding(Kind.PROCESS, f"process {pid} still works in {folder.name}, which has ended")


def process_in(folder: Path) -> int | None:
    """Return the process that works in an attempt's folder here: its output goes to the log there."""
    try:
        pid = int((folder / layout.PID).read_text(encoding="ascii"))
        opened = {Path(f"/proc/{pid}/fd/{number}").readlink().parent for number in (1, 2)}
    except (OSError, ValueError):
        return None
    return pid if folder.resolve() in opened else None


def _held(lock: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _leftover(path: Path, why: str) -> Finding:
    return Finding(kind=Kind.LEFTOVER, job=None, sentence=f"{path}: {why}")
