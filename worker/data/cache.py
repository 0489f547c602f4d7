"""The host's data sets, shared by all jobs: content-addressed, published whole, one download of a source at a time.

    sources/<key>.json     what a source turned out to be; the key is the source's digest
    sets/<hash>/data       an unpacked set, and beside it manifest.json
    archives/<key>.part    a download under way, with its sidecar <key>.json; <key>.zip goes once it is unpacked
    decoded/               pictures decoded once: see `worker.data.decoded`
    picks/                 what was measured once: see `worker.picks`
    locks/<key>.lock       held while a source is fetched; <key>.progress is how far its holder has come

A folder as source is used where it is and never copied: only its manifest is here.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import config, errors, failpoints
from orchestrator.core import jobs, specs, states
from worker import durable, folders, protocol
from worker.data import archive, decoded, download, imagefolder, named, once, sources, weights, zipcheck

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Manifest(BaseModel):
    """What is known of a set whose every picture has been decoded."""

    model_config = ConfigDict(frozen=True)

    hash: str
    source: str
    classes: tuple[str, ...]
    counts: dict[jobs.Split, int]
    folders: dict[jobs.Split, str]  #: the splits' folder names
    bytes: int
    shared: int = 0  #: pictures of the validation split that the train split has too
    listing: str  #: digest of every picture's path, size and time: whether anything was changed since


class Record(BaseModel):
    """What a source turned out to be."""

    manifest: Manifest
    archive_sha256: str | None = None
    stamp: str | None = None  #: size and time of a local archive when it was unpacked


def ensure_data(
    spec: specs.JobSpec, *, expected_hash: str | None, settings: config.Settings, report: once.Report
) -> protocol.DatasetInfo:
    """Return the job's data set, whole on this host; fetches what is missing.

    `expected_hash` is the content hash that an earlier stage of the job has fixed. `report` is called about twice a
    second while bytes or pictures go by; an exception of its ends the work, and a download goes on from there later.

    Raises:
        StageFailed: bad_input, unreachable, disk_full or timeout.

    """
    source = sources.parse(spec.data)
    cache = Cache(settings.data_dir)
    try:
        if expected_hash is not None and (known := cache.known_set(expected_hash)) is not None:
            cache.use(source, known.hash)
            return known
        sources.check_allowed(source, settings)
        found = cache.find(source, spec.data_sha256)
        if found is None:
            found = cache.fetch(source, spec.data_sha256, settings, report)
        cache.use(source, found.hash)
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
        raise errors.StageFailed(
            "The data changed since the job began.",
            reason=states.Reason.BAD_INPUT,
            why=f"{source.label} had the content hash {expected_hash}, now it has {found.hash}.",
            hint="Put the old data back and retry the job, or submit a new one.",
        )
    return found


@contextlib.contextmanager
def using(
    spec: specs.JobSpec, *, expected_hash: str | None, settings: config.Settings, report: once.Report
) -> Iterator[protocol.DatasetInfo]:
    """Yield what `ensure_data` returns, which nobody on this host can remove until the end; raises what it raises."""
    cache = Cache(settings.data_dir)
    while True:
        found = ensure_data(spec, expected_hash=expected_hash, settings=settings, report=report)
        with cache.hold(found) as there:
            if there:  # else it was removed just now
                yield found
                return


def here(spec: specs.JobSpec, content_hash: str, *, settings: config.Settings) -> protocol.DatasetInfo | None:
    """Return a job's data set of that content where this host has it; nothing is fetched."""
    source, cache = sources.parse(spec.data), Cache(settings.data_dir)
    try:
        sources.check_allowed(source, settings)
        found = cache.known_set(content_hash) or cache.find(source, spec.data_sha256)
    except (OSError, errors.StageFailed):
        return None
    return found if found is not None and found.hash == content_hash else None


def drop_partial(spec: specs.JobSpec, *, settings: config.Settings) -> None:
    """Remove what a cancelled job has downloaded so far, unless another process is at it."""
    cache, key = Cache(settings.data_dir), sources.parse(spec.data).key
    cache.drop(key, *cache.archives.glob(f"{key}.*"))


def clear_up(wanted: Collection[specs.JobSpec], *, settings: config.Settings) -> None:
    """Remove what processes that died have left, but for the downloads that jobs of `wanted` specs would go on with."""
    cache = Cache(settings.data_dir)
    for key, path in abandoned(wanted, settings=settings):
        cache.drop(key, path)


def abandoned(wanted: Collection[specs.JobSpec], *, settings: config.Settings) -> Iterator[tuple[str, Path]]:
    """Yield what fetching has left, with its source's key, but what jobs of `wanted` specs would go on with.

    A process may be at work on some of it: it holds the lock of the key.
    """
    cache = Cache(settings.data_dir)
    keep = {weights.key(spec) for spec in wanted}
    for spec in wanted:
        with contextlib.suppress(errors.StageFailed):  # it failed for naming no source
            keep.add(sources.parse(spec.data).key)
    for path in folders.unfinished(settings.data_dir):
        key = path.name.removeprefix(".").partition(".")[0]
        if path.parent not in {cache.archives, settings.data_dir / weights.FOLDER} or key not in keep:
            yield key, path


class Cache:
    """The folders of the cache, and what is done in them under their locks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sources, self.sets = folder / "sources", folder / "sets"
        self.archives, self.locks = folder / "archives", folder / "locks"

    def lock(self, name: str) -> filelock.BaseFileLock:
        """Return the lock of a source's key, or of a set's hash."""
        failpoints.reach("cache.lock")
        self.locks.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self.locks / f"{name}.lock")

    def drop(self, key: str, *paths: Path) -> None:
        """Remove what a source's fetching has left, unless a process is at it."""
        with contextlib.suppress(filelock.Timeout), self.lock(key).acquire(blocking=False):
            for path in paths:
                failpoints.reach("cache.drop")
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def is_free(self, key: str) -> bool:
        """Whether no process is at a source's fetching."""
        with contextlib.suppress(filelock.Timeout), self.lock(key).acquire(blocking=False):
            return True
        return False

    def use(self, source: sources.Source, content_hash: str) -> None:
        """Let the times of a set's own files say that it was used now."""
        for path in (self.sources / f"{source.key}.json", self.sets / content_hash / "manifest.json"):
            with contextlib.suppress(OSError):
                os.utime(path)

    def hold(self, data: protocol.DatasetInfo) -> contextlib.AbstractContextManager[bool]:
        """Keep a set from being removed; says whether it is there. Somebody's own folder is never removed."""
        unpacked = Path(data.path).is_relative_to(self.sets)
        return self._locked(data.hash, fcntl.LOCK_SH) if unpacked else contextlib.nullcontext(True)

    @contextlib.contextmanager
    def _locked(self, content_hash: str, operation: int) -> Iterator[bool]:
        """Lock the manifest of an unpacked set, which goes with the set; say whether it is the one that is there."""
        path = self.sets / content_hash / "manifest.json"
        try:
            failpoints.reach("cache.hold")
            manifest = path.open("rb" if operation == fcntl.LOCK_SH else "r+b")  # as network file systems want it
        except FileNotFoundError:
            yield False
            return
        with manifest:
            fcntl.flock(manifest, operation)
            yield path.exists() and os.path.samestat(os.fstat(manifest.fileno()), path.stat())

    def known_set(self, content_hash: str) -> protocol.DatasetInfo | None:
        """Return the unpacked set of that content; None when it is not there, or not as it was published."""
        try:
            failpoints.reach("cache.known")
            manifest = Manifest.model_validate_json((self.sets / content_hash / "manifest.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return _verified(manifest, self.sets / content_hash / "data")

    def find(self, source: sources.Source, sha256: str | None) -> protocol.DatasetInfo | None:
        """Return what the source is known to be, without any network; None when it must be fetched."""
        try:
            failpoints.reach("cache.find")
            record = Record.model_validate_json((self.sources / f"{source.key}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        if _is_folder(source):
            return None if sha256 is not None else _verified(record.manifest, source.path)
        if record.stamp != _stamp(source) or sha256 not in {None, record.archive_sha256}:
            return None
        return self.known_set(record.manifest.hash)

    def fetch(
        self, source: sources.Source, sha256: str | None, settings: config.Settings, report: once.Report
    ) -> protocol.DatasetInfo:
        """Bring the source here, once a host: whoever comes second waits and gets the result."""
        progress = self.locks / f"{source.key}.progress"
        with once.held(self.lock(source.key), progress, report):
            if (found := self.find(source, sha256)) is not None:
                return found
            reporter = once.Reporter(report, progress)
            try:
                if _is_folder(source):
                    return self._take_folder(source, sha256, settings, reporter)
                return self._take_archive(source, sha256, settings, reporter)
            finally:
                failpoints.reach("cache.done")
                progress.unlink(missing_ok=True)

    def _take_folder(
        self, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
    ) -> protocol.DatasetInfo:
        if sha256 is not None:
            raise _no_sha256(source, "It is a folder; data_sha256 is for archives.")
        layout = imagefolder.discover(source.path)
        sources.check_links(layout, settings)
        manifest = _admitted(layout, source, reporter)
        self._remember(source, Record(manifest=manifest))
        return _info(manifest, layout.root)

    def _take_archive(
        self, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
    ) -> protocol.DatasetInfo:
        failpoints.reach("cache.mkdir")
        self.archives.mkdir(parents=True, exist_ok=True)
        self.sets.mkdir(parents=True, exist_ok=True)
        stamp = _stamp(source)
        packed = self._archive(source, sha256, settings, reporter)
        staging = self.sets / f".{source.key}"
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
            self._publish(staging, manifest)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if _is_fetched(source):
                packed.path.unlink(missing_ok=True)
        self._remember(source, Record(manifest=manifest, archive_sha256=packed.sha256, stamp=stamp))
        for left in self.archives.glob(f"{source.key}.*"):  # what the archive was made of
            left.unlink(missing_ok=True)
        return _info(manifest, self.sets / manifest.hash / "data")

    def _archive(
        self, source: sources.Source, sha256: str | None, settings: config.Settings, reporter: once.Reporter
    ) -> download.Archive:
        if source.kind == "named":
            if sha256 is not None:
                raise _no_sha256(source, "Its files have checksums of their own; data_sha256 is for archives.")
            return named.fetch(
                source.location, folder=self.archives, key=source.key, settings=settings, report=reporter
            )
        if source.kind != "url":
            return download.checked(source.path, sha256=sha256, label=source.label)
        return download.fetch(
            source.location,
            folder=self.archives,
            name=source.key,
            sha256=sha256,
            policy=download.Policy.of(settings),
            report=lambda done, total: reporter(done, total, "bytes"),
        )

    def records(self) -> Iterator[tuple[Path, Record]]:
        """Yield what every source turned out to be, with the file that says so; what cannot be read is left out."""
        for path in sorted(self.sources.glob("*.json")):
            with contextlib.suppress(OSError, ValidationError):
                yield path, Record.model_validate_json(path.read_bytes())

    def manifests(self) -> Iterator[tuple[Path, Manifest]]:
        """Yield the manifest of every unpacked set, with its folder; what cannot be read is left out."""
        for path in sorted(self.sets.glob("[!.]*/manifest.json")):
            with contextlib.suppress(OSError, ValidationError):
                yield path.parent, Manifest.model_validate_json(path.read_bytes())

    def remove(self, content_hash: str) -> None:
        """Remove a set that was unpacked, and what is known of its sources; a source's own folder stays.

        Raises:
            OrchError: a process of this host reads the set.

        """
        going = self.sets / f".{content_hash}"  # what stays of it when this is killed, `clear_up` removes
        with self.lock(content_hash):
            try:
                with self._locked(content_hash, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    for path, record in self.records():
                        if record.manifest.hash == content_hash:
                            path.unlink(missing_ok=True)
                    shutil.rmtree(going, ignore_errors=True)
                    with contextlib.suppress(FileNotFoundError):
                        (self.sets / content_hash).rename(going)
            except BlockingIOError as error:
                raise errors.OrchError(
                    f"The data set {content_hash[:12]} is in use.",
                    why="A process on this host reads it.",
                    hint="`orch list --state running` shows jobs that may.",
                ) from error
            shutil.rmtree(going, ignore_errors=True)
            decoded.forget(self._folder, content_hash)

    def _publish(self, staging: Path, manifest: Manifest) -> None:
        """Rename the set to its final place, where it is not already by way of another source."""
        root = imagefolder.discover(staging / "archive").root
        root.rename(staging / "data")
        shutil.rmtree(staging / "archive", ignore_errors=True)
        durable.write(_json(manifest), path=staging / "manifest.json", place="manifest")
        final = self.sets / manifest.hash
        with self.lock(manifest.hash):
            if self.known_set(manifest.hash) is None:
                shutil.rmtree(final, ignore_errors=True)
                failpoints.reach("cache.publish")
                staging.rename(final)
                failpoints.reach("cache.folder")
                durable.sync_folder(self.sets)

    def _remember(self, source: sources.Source, record: Record) -> None:
        (self.locks / f"{source.key}.progress").unlink(missing_ok=True)  # whoever dies behind the record leaves none
        failpoints.reach("source.mkdir")
        self.sources.mkdir(parents=True, exist_ok=True)
        durable.write(_json(record), path=self.sources / f"{source.key}.json", place="source")


def _admitted(layout: imagefolder.Layout, source: sources.Source, reporter: once.Reporter) -> Manifest:
    total = sum(len(pictures) for pictures in layout.pictures.values())
    listing = imagefolder.listing(layout)  # before the reading, so that a change during it shows later
    contents = imagefolder.admit(layout, report=lambda done: reporter(done, total, "images"))
    return Manifest(
        hash=contents.hash,
        source=source.label,
        classes=layout.classes,
        counts={split: len(pictures) for split, pictures in layout.pictures.items()},
        folders=layout.folders,
        bytes=contents.bytes,
        shared=contents.shared,
        listing=listing,
    )


def _verified(manifest: Manifest, folder: Path) -> protocol.DatasetInfo | None:
    """Return the set in `folder` if every picture is as the manifest has it, by path, size and time."""
    try:
        layout = imagefolder.discover(folder)
        same = imagefolder.listing(layout) == manifest.listing
    except (OSError, errors.StageFailed):
        return None
    return _info(manifest, layout.root) if same else None


def _info(manifest: Manifest, root: Path) -> protocol.DatasetInfo:
    return protocol.DatasetInfo(
        hash=manifest.hash,
        source=manifest.source,
        classes=manifest.classes,
        counts={str(split): count for split, count in manifest.counts.items()},
        bytes=manifest.bytes,
        shared=manifest.shared,
        path=str(root),
    )


def _no_sha256(source: sources.Source, why: str) -> errors.StageFailed:
    return errors.StageFailed(
        f"{source.label} has no sha256.",
        reason=states.Reason.BAD_INPUT,
        why=why,
        hint="Leave data_sha256 out.",
    )


def _is_fetched(source: sources.Source) -> bool:
    return source.kind in {"url", "named"}


def _is_folder(source: sources.Source) -> bool:
    return source.kind == "path" and source.path.is_dir()


def _stamp(source: sources.Source) -> str | None:
    if _is_fetched(source):
        return None
    failpoints.reach("cache.stamp")
    status = source.path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _json(content: BaseModel) -> bytes:
    return content.model_dump_json(indent=1).encode()
