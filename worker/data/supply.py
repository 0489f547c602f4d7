"""The data set of a job: whole on this host, fetched where it is missing, one download of a source at a time."""

import contextlib
import errno
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from orchestrator import config, errors, failpoints
from orchestrator.core import specs, states
from worker import protocol
from worker.data import archive, cache, download, imagefolder, named, once, sources, weights, whole, zipcheck
from worker.refusals import refused

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def ensure_data(
    spec: specs.JobSpec, *, expected_hash: str | None, settings: config.Settings, report: once.Report
) -> protocol.DatasetInfo:
    """Return the job's data set, whole on this host; fetches what is missing.

    `expected_hash` is the content hash that an earlier stage of the job has fixed. `report` is called about twice a
    second while bytes or pictures go by; an exception of its ends the work: what was downloaded waits, and is not
    fetched again.

    Raises:
        StageFailed: bad_input, unreachable, disk_full or timeout.

    """
    source = sources.parse(spec.data)
    where = cache.Cache(settings.data_dir)
    try:
        if expected_hash is not None and (known := where.known_set(expected_hash)) is not None:
            where.use(source, known.hash)
            return known
        sources.check_allowed(source, settings)
        found = where.find(source, spec.data_sha256)
        if found is None:
            found = _fetch(where, source, spec.data_sha256, settings, report)
        _drop_partial(where, source)  # who died when the set was there may have left what it was made of
        where.use(source, found.hash)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise errors.StageFailed(
            "The disk is full.",
            reason=states.Reason.DISK_FULL,
            why=f"Data sets are kept in {settings.data_dir}.",
            hint=f"Free some space, or set {config.variable('data_cache')} to a larger disk.",
        ) from error
    if expected_hash not in {None, found.hash}:
        raise refused(
            "The data changed since the job began.",
            why=f"{source.label} had the content hash {expected_hash}, now it has {found.hash}.",
            hint="Put the old data back and try again, or submit a new job.",
        )
    return found


@contextlib.contextmanager
def using(
    spec: specs.JobSpec, *, expected_hash: str | None, settings: config.Settings, report: once.Report
) -> Iterator[protocol.DatasetInfo]:
    """Yield what `ensure_data` returns, which nobody on this host can remove until the end; raises what it raises."""
    where = cache.Cache(settings.data_dir)
    while True:
        found = ensure_data(spec, expected_hash=expected_hash, settings=settings, report=report)
        with where.hold(found) as there:
            if there:  # else it was removed just now
                yield found
                return


def here(spec: specs.JobSpec, content_hash: str, *, settings: config.Settings) -> protocol.DatasetInfo | None:
    """Return a job's data set of that content where this host has it; nothing is fetched."""
    source, where = sources.parse(spec.data), cache.Cache(settings.data_dir)
    if (known := where.known_set(content_hash)) is not None:  # wherever it came from, and whatever lies there now
        return known
    try:
        sources.check_allowed(source, settings)
        found = where.find(source, spec.data_sha256)
    except (OSError, errors.StageFailed):
        return None
    return found if found is not None and found.hash == content_hash else None


def clear_up(left: Iterable[Path], wanted: Collection[specs.JobSpec], *, settings: config.Settings) -> None:
    """Remove what of `left` is abandoned, and no process is at."""
    where = cache.Cache(settings.data_dir)
    for key, path in abandoned(left, wanted, settings=settings):
        where.drop(key, path)


def wanted_by(spec: specs.JobSpec, left: Iterable[Path]) -> list[Path]:
    """Return what of `left` is of the sources that a spec names."""
    keys = set(_keys(spec))
    return [path for path in left if _key(path) in keys]


def at_rest(left: Iterable[Path], *, settings: config.Settings) -> bool:
    """Whether fetching has left anything that no process is at."""
    where = cache.Cache(settings.data_dir)
    return any(where.is_free(key) for key in {_key(path) for path in left})


def abandoned(
    left: Iterable[Path], wanted: Collection[specs.JobSpec], *, settings: config.Settings
) -> Iterator[tuple[str, Path]]:
    """Yield what fetching has `left`, with its source's key, but what jobs of `wanted` specs would go on with.

    The files are to be looked for before the jobs are: a job is in the database before it has any. A process may be at
    work on some of it: it holds the lock of the key.
    """
    where = cache.Cache(settings.data_dir)
    keep = {key for spec in wanted for key in _keys(spec)}
    for path in left:
        key = _key(path)
        if path.parent not in {where.archives, settings.data_dir / weights.FOLDER} or key not in keep:
            yield key, path


def _drop_partial(where: cache.Cache, source: sources.Source) -> None:
    """Remove what was downloaded of a source and is not unpacked, unless another process is at it."""
    if left := list(where.archives.glob(f"{source.key}.*")):
        where.drop(source.key, *left)


def _keys(spec: specs.JobSpec) -> Iterator[str | None]:
    """Yield the keys of the sources that a spec names."""
    yield weights.key(spec)
    with contextlib.suppress(errors.StageFailed):  # it failed for naming no source
        yield sources.parse(spec.data).key


def _key(unfinished: Path) -> str:
    """Return the key of the source of which this is left."""
    return unfinished.name.removeprefix(".").partition(".")[0]


def _fetch(
    where: cache.Cache, source: sources.Source, sha256: str | None, settings: config.Settings, report: once.Report
) -> protocol.DatasetInfo:
    """Bring the source here, once a host: whoever comes second waits and gets the result."""
    progress = where.locks / f"{source.key}.progress"
    with once.held(where.lock(source.key), progress, report):
        if (found := where.find(source, sha256)) is not None:
            return found
        reporter = once.Reporter(report, progress)
        try:
            if source.is_folder:
                return _take_folder(where, source, sha256, settings, reporter)
            return _take_archive(where, source, sha256, settings, reporter)
        finally:
            failpoints.reach("cache.done")
            progress.unlink(missing_ok=True)


def _take_folder(
    where: cache.Cache, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
) -> protocol.DatasetInfo:
    if sha256 is not None:
        raise _no_sha256(source, "It is a folder; data_sha256 is for archives.")
    layout = imagefolder.discover(source.path)
    sources.check_links(layout, settings)
    manifest = _admitted(layout, source, reporter)
    where.remember(source, cache.Record(manifest=manifest))
    return manifest.info(layout.root)


def _take_archive(
    where: cache.Cache, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
) -> protocol.DatasetInfo:
    failpoints.reach("cache.mkdir")
    where.archives.mkdir(parents=True, exist_ok=True)
    where.sets.mkdir(parents=True, exist_ok=True)
    stamp = cache.stamp(source)
    packed = _archive(where, source, sha256, settings, reporter)
    staging = where.sets / f".{source.key}"
    try:
        failpoints.reach("cache.clear")
        # A process that was killed here leaves its staging folder; the lock says that nobody works in it.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        archive.extract(
            packed.path,
            into=staging / "archive",
            limits=zipcheck.Limits(max_bytes=settings.extract_max_bytes),
            report=lambda done, total: reporter(done, total, "bytes"),
        )
        manifest = _admitted(imagefolder.discover(staging / "archive"), source, reporter)
        where.publish(staging, manifest)
    except errors.StageFailed as failed:
        # Whatever else ends it, a stop or a full disk: the archive waits for the next attempt.
        if source.is_fetched and failed.reason == states.Reason.BAD_INPUT:
            whole.discard(packed.path)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    where.remember(source, cache.Record(manifest=manifest, archive_sha256=packed.sha256, stamp=stamp))
    for left in where.archives.glob(f"{source.key}.*"):  # a downloaded archive, and what it was made of
        left.unlink(missing_ok=True)
    return manifest.info(where.sets / manifest.hash / "data")


def _archive(
    where: cache.Cache, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
) -> whole.Archive:
    if source.kind == "named" and sha256 is not None:
        raise _no_sha256(source, "Its files have checksums of their own; data_sha256 is for archives.")

    def report(done: int, total: int | None) -> None:
        reporter(done, total, "bytes")

    if not source.is_fetched:
        return whole.checked(source.path, sha256=sha256, label=source.label, report=report)

    waiting = whole.taken_up(where.archives / f"{source.key}.zip", sha256=sha256, report=report)
    if waiting is not None:
        return waiting
    if source.kind == "named":
        return named.fetch(source.location, folder=where.archives, key=source.key, settings=settings, report=reporter)
    return download.fetch(
        source.location,
        folder=where.archives,
        name=source.key,
        sha256=sha256,
        policy=download.Policy.of(settings),
        report=report,
        noted=True,
    )


def _admitted(layout: imagefolder.Layout, source: sources.Source, reporter: once.Reporter) -> cache.Manifest:
    total = sum(len(pictures) for pictures in layout.pictures.values())
    listing = imagefolder.listing(layout)  # before the reading, so that a change during it shows later
    contents = imagefolder.admit(layout, report=lambda done: reporter(done, total, "images"))
    return cache.Manifest(
        hash=contents.hash,
        source=source.label,
        classes=layout.classes,
        counts={split: len(pictures) for split, pictures in layout.pictures.items()},
        folders=layout.folders,
        bytes=contents.bytes,
        shared=contents.shared,
        listing=listing,
    )


def _no_sha256(source: sources.Source, why: str) -> errors.StageFailed:
    return refused(
        f"{source.label} has no sha256.",
        why=why,
        hint="Leave data_sha256 out.",
    )
