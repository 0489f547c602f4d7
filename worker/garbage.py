"""`python -m worker.garbage`: what nobody on this host needs any more, and how much room it takes.

Nodes clear what jobs, attempts and downloads have left by themselves: at their start, behind an attempt, and of deleted
jobs and downloads once a minute. What a job refers to that has not ended stays, and so does what a process is at: the
rules are those of `remains` and of the cache, under the same locks.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config, errors
from orchestrator.core import ids, jobs, states
from orchestrator.store import artifacts, base, sql
from worker import answers, folders, remains
from worker.data import cache, decoded, inventory, sources, supply

#: Seconds from when on a file that nobody refers to is wanted by nobody who is about to.
_NEW_SECONDS = 3600.0
#: Seconds for which compiled code is kept that no training has begun with: whoever comes later compiles anew.
_COMPILED_SECONDS = 30 * 86400.0


class Request(answers.Request):
    """What to do: only look, or remove; `orphans` as well, of which the database has never heard."""

    dry_run: bool
    orphans: bool


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that nobody needs."""

    #: deleted job, ended attempts, orphan, partial download, bundled weights, decoded pictures, compiled code, data set
    kind: str
    path: Path
    bytes: int
    job: str | None = None
    remove: Callable[[], bool] | None  #: says whether it has gone; None: it is left alone
    why: str  #: nobody needs it, or it is left alone


def main() -> int:
    """Answer the request on standard input."""
    return answers.serve(Request, collect)


def collect(request: Request, say: answers.Say) -> None:
    """Say what there is, and whether it has gone."""
    settings = config.load()
    with closing(sql.open_store(settings, create=False)) as store:
        for item in found(settings, store, orphans=request.orphans):
            gone, why = (False, item.why) if request.dry_run else _removed(item)
            told = {"kind": item.kind, "path": str(item.path), "bytes": item.bytes, "job": item.job}
            say({"item": {**told, "removable": item.remove is not None, "removed": gone, "why": why}})


def _removed(item: Item) -> tuple[bool, str]:
    if item.remove is None:
        return False, item.why
    try:
        return (True, item.why) if item.remove() else (False, "a process is at it")
    except (errors.OrchError, OSError) as error:
        return False, str(error)


def found(settings: config.Settings, store: base.Store, *, orphans: bool) -> Iterator[Item]:
    """Yield all of it, each as it stands when it is asked for."""
    yield from _of_jobs(settings.artifact_dir, store, orphans=orphans)
    yield from _of_downloads(settings, store)
    yield from _of_bundles(settings, store)
    yield from _of_pixels(settings)
    yield from _of_compiled(settings)
    yield from _of_sets(settings, store)


def _of_jobs(root: Path, store: base.Store, *, orphans: bool) -> Iterator[Item]:
    # The folders first: a job is in the database before it has one.
    found = sorted(folder for folder in root.glob("*") if len(folder.name) == ids.LENGTH and folder.is_dir())
    deleted = store.deleted([folder.name for folder in found])
    for folder in found:
        if folder.name in deleted:
            yield _whole("deleted job", root, folder, why="its job was deleted", removable=True)
            continue
        try:
            job = store.get(folder.name)
        except errors.NotFound:
            if any(folders.attempts(folder)):
                why = "the database has never heard of its job, which may be another installation's"
                yield _whole("orphan", root, folder, why=why, removable=orphans)
            continue
        yield from _of_attempts(root, store, job)


def _whole(kind: str, root: Path, folder: Path, *, why: str, removable: bool) -> Item:
    def remove() -> bool:
        return artifacts.remove(root, folder.name)

    size = _size(folder)
    return Item(kind=kind, path=folder, bytes=size, job=folder.name, why=why, remove=remove if removable else None)


def _of_attempts(root: Path, store: base.Store, job: jobs.Job) -> Iterator[Item]:
    ended = remains.ended(job)
    needed = remains.files(root, store.checkpoints(job.id))
    size = sum(map(_size, remains.superfluous(root, job, needed, up_to=ended)))

    def remove() -> bool:
        remains.clear_ended(root, store, job.id, up_to=ended)
        return True

    if size:
        why = "its attempts have ended, and no checkpoint is kept in it"
        yield Item(kind="ended attempts", path=root / job.id, bytes=size, job=job.id, why=why, remove=remove)


def _of_downloads(settings: config.Settings, store: base.Store) -> Iterator[Item]:
    left = folders.unfinished(settings.data_dir)  # first, as above
    wanting = store.jobs(jobs.JobFilter(states=tuple(states.MAY_GO_ON)))
    where = cache.Cache(settings.data_dir)
    for key, path in supply.abandoned(left, [job.spec for job in wanting], settings=settings):

        def remove(key: str = key, path: Path = path) -> bool:
            where.drop(key, path)
            return not path.exists()

        if where.is_free(key):
            size, why = _size(path), "no job goes on with it"
            yield Item(kind="partial download", path=path, bytes=size, why=why, remove=remove)


def _of_bundles(settings: config.Settings, store: base.Store) -> Iterator[Item]:
    """Yield weights out of bundles that no job has begun with; new ones may be those of one about to be queued.

    One that has succeeded needs them as well: to be cloned, bundled or verified. Their files are named by content.
    """
    there = [path for path in sorted(settings.bundle_dir.glob("*")) if path.is_file() and _is_old(path)]
    needed = {Path(job.spec.weights or "").name for job in store.jobs(jobs.JobFilter())} if there else set()
    for path in there:

        def remove(path: Path = path) -> bool:
            if _is_old(path):  # else one comes in just now that needs it
                path.unlink(missing_ok=True)
            return not path.exists()

        if path.name not in needed:
            why = "it came in a bundle, and no job has begun with it"
            yield Item(kind="bundled weights", path=path, bytes=_size(path), why=why, remove=remove)


def _is_old(path: Path, *, seconds: float = _NEW_SECONDS) -> bool:
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > seconds
    return False


def _of_pixels(settings: config.Settings) -> Iterator[Item]:
    """Yield decoded pictures that no training reads again."""
    hashes = [one.manifest.hash for one in inventory.held(cache.Cache(settings.data_dir))]
    for folder, size in decoded.useless(settings.data_dir, hashes):

        def remove(folder: Path = folder) -> bool:
            return decoded.remove(folder, settings)

        why = "their data set is not here any more, or they were decoded by other versions"
        yield Item(kind="decoded pictures", path=folder, bytes=size, why=why, remove=remove)


def _of_compiled(settings: config.Settings) -> Iterator[Item]:
    """Yield code that `--compile` made and no training has begun with for long."""
    for folder in sorted(folders.compiled(settings.data_dir).glob("*")):

        def remove(folder: Path = folder) -> bool:
            if _is_old(folder, seconds=_COMPILED_SECONDS):
                shutil.rmtree(folder)
            return not folder.exists()

        if folder.is_dir() and _is_old(folder, seconds=_COMPILED_SECONDS):
            why = "no training has begun with it for a month"
            yield Item(kind="compiled code", path=folder, bytes=_size(folder), why=why, remove=remove)


def _of_sets(settings: config.Settings, store: base.Store) -> Iterator[Item]:
    """Yield the sets that were used longest ago, until the others fit; none that a job needs which has not ended."""
    limit = settings.data_max_bytes
    if limit is None:
        return
    where = cache.Cache(settings.data_dir)
    here = sorted((one for one in inventory.held(where) if one.unpacked), key=lambda one: one.used_at)
    active = store.jobs(jobs.JobFilter(states=tuple(set(states.JobState) - states.FINAL)))
    size = sum(one.manifest.bytes for one in here)
    for one in here:
        if size <= limit:
            return
        if any(_uses(job, one) for job in active):
            continue
        size -= one.manifest.bytes
        yield _set(where, one, decoded.taken(settings.data_dir, one.manifest.hash))


def _set(where: cache.Cache, one: inventory.Held, pixels: int) -> Item:
    def remove() -> bool:
        where.remove(one.manifest.hash)
        return True

    why = f"the cache is over its limit, and {one.sources[0]} was used longest ago"
    return Item(kind="data set", path=one.folder.parent, bytes=one.manifest.bytes + pixels, why=why, remove=remove)


def _uses(job: jobs.Job, one: inventory.Held) -> bool:
    """Whether a job works on the set, or is about to: before its download it knows the source alone."""
    if job.data_hash is not None:
        return job.data_hash == one.manifest.hash
    with suppress(errors.StageFailed):  # it will fail, for naming no source
        return sources.parse(job.spec.data).label in one.sources
    return False


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all below a folder; what goes meanwhile has none."""
    total = 0
    for file in artifacts.files_below(path) if path.is_dir() else (path,):
        with suppress(OSError):
            total += file.lstat().st_size
    return total


if __name__ == "__main__":
    sys.exit(main())
