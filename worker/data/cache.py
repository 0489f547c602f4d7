"""The host's data sets, shared by all jobs: content-addressed, published whole. `worker.data.supply` fills it.

    sources/<key>.json     what a source turned out to be; the key is the source's digest
    sets/<hash>/data       an unpacked set, and beside it manifest.json
    archives/<key>.part    a download under way, with its sidecar <key>.json
    archives/<key>.zip     a whole one, with its sidecar <key>.sha256, until it is unpacked
    decoded/               pictures decoded once: see `worker.data.decoded`
    picks/                 what was measured once: see `worker.picks`
    locks/<key>.lock       held while a source is fetched; <key>.progress is how far its holder has come

A folder as source is used where it is and never copied: only its manifest is here.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import disk, errors, failpoints
from orchestrator.core import jobs
from worker import durable, protocol
from worker.data import decoded, imagefolder, sources


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

    def info(self, root: Path) -> protocol.DatasetInfo:
        """Return what jobs know of the set, which lies at `root`."""
        return protocol.DatasetInfo(
            hash=self.hash,
            source=self.source,
            classes=self.classes,
            counts={str(split): count for split, count in self.counts.items()},
            bytes=self.bytes,
            shared=self.shared,
            path=str(root),
        )


class Record(BaseModel):
    """What a source turned out to be."""

    manifest: Manifest
    archive_sha256: str | None = None
    stamp: str | None = None  #: size and time of a local archive when it was unpacked


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
        if source.is_folder:
            return None if sha256 is not None else _verified(record.manifest, source.path)
        if record.stamp != stamp(source) or sha256 not in {None, record.archive_sha256}:
            return None
        return self.known_set(record.manifest.hash)

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

    def publish(self, staging: Path, manifest: Manifest) -> None:
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
                disk.sync_folder(self.sets)

    def remember(self, source: sources.Source, record: Record) -> None:
        """Keep what the source turned out to be."""
        (self.locks / f"{source.key}.progress").unlink(missing_ok=True)  # whoever dies behind the record leaves none
        failpoints.reach("source.mkdir")
        self.sources.mkdir(parents=True, exist_ok=True)
        durable.write(_json(record), path=self.sources / f"{source.key}.json", place="source")


def _verified(manifest: Manifest, folder: Path) -> protocol.DatasetInfo | None:
    """Return the set in `folder` if every picture is as the manifest has it, by path, size and time."""
    try:
        layout = imagefolder.discover(folder)
        same = imagefolder.listing(layout) == manifest.listing
    except (OSError, errors.StageFailed):
        return None
    return manifest.info(layout.root) if same else None


def stamp(source: sources.Source) -> str | None:
    """Return size and time of an archive on this host, None for a source that is fetched from elsewhere."""
    if source.is_fetched:
        return None
    failpoints.reach("cache.stamp")
    status = source.path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _json(content: BaseModel) -> bytes:
    return content.model_dump_json(indent=1).encode()
