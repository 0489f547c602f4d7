"""A whole installation in one file: the rows of its database, and the checkpoints and logs that they refer to.

The rows are of one moment. A checkpoint of a job that goes on is opened at that moment, so that retention, which
removes it from its folder, does not take it away before it is copied.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import pydantic

from orchestrator import config, errors, failpoints
from orchestrator.core import ids, layout
from orchestrator.service import archive, files
from orchestrator.service.doing import Doing
from orchestrator.store import artifacts, dump, engine

#: What the archive's comment begins with, and its format: raised where an older orch could not read a newer one's.
KIND, FORMAT = "orch backup", 1

#: Folders in the archive.
TABLES, FILES = "tables", "artifacts"

#: Files that are held open, so many at most; of the rest one may be gone when it is its turn.
_MOST_HELD = 512

#: Tries for a moment in which no checkpoint goes between the look at its row and that at its file.
_TRIES = 5

#: Bytes of a name in a folder, at most.
_LONGEST_NAME = 255

_PIECE = 2**20


class Table(pydantic.BaseModel):
    """A table: a line of JSON for each row, with its values in the order of the columns."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    columns: tuple[str, ...]
    rows: int
    part: archive.Part


class LeftOut(pydantic.BaseModel):
    """A checkpoint that a row refers to, and why it is not in the backup."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    path: str
    why: str
    damaged: bool  #: whether it is there, and not what was written


class Manifest(archive.Head):
    """What a backup says of itself."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    made_at: pydantic.AwareDatetime
    revision: str = pydantic.Field(pattern="^[0-9]{4}$")
    database: Literal["sqlite", "postgresql"]
    states: dict[str, int]  #: jobs by their state
    tables: tuple[Table, ...]
    root: str | None  #: id of the artifact root whose files are in it; None: none are
    listing: archive.Part | None  #: a line of JSON for each of these files
    files: int
    file_bytes: int
    left_out: tuple[LeftOut, ...]
    elsewhere: int  #: checkpoints that lie under other roots

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is about to be written, at most, and what is free for it."""

    database: int
    files: int
    file_bytes: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """A backup."""

    path: Path
    bytes: int
    manifest: Manifest


Hear = Callable[[Sizes | Doing], None]


def backup(
    settings: config.Settings, path: Path, *, hear: Hear, with_artifacts: bool = True, force: bool = False
) -> Written:
    """Write a backup of the installation that the settings name; workers may run. `hear` is told how far it is.

    Raises:
        UsageError: the file exists, and not `force`; or it cannot lie there.
        DatabaseUnavailable, SchemaMismatch: there is no database, or a newer one; nothing was written.
        OrchError: the artifact folder or a file in it cannot be read, or the disk has no room or does not take it;
            nothing is left of it.

    """
    taking = _Taking(settings, path.absolute(), hear, with_artifacts=with_artifacts)
    with contextlib.closing(engine.Database(settings.database, must_exist=True)) as database:
        _require_database(settings, database)
        with archive.writing(path, kind=KIND, force=force) as writer, taking:
            manifest = taking.take(database, writer)
            writer.end(manifest)
    return Written(path=path.absolute(), bytes=path.stat().st_size, manifest=manifest)


def fault(path: str) -> str | None:
    """Return what is wrong with a file's path below the artifact root; None where it may lie there."""
    parts = path.split("/")
    if path.isprintable() and "\\" not in path and PurePosixPath(path).as_posix() == path and ".." not in parts:
        whole = len(parts) > 1 and len(parts[0]) == ids.LENGTH and parts[0].isascii() and parts[0].isalnum()
        if whole and all(0 < len(part.encode()) <= _LONGEST_NAME for part in parts):
            return None
    return "it is no path of a job's file"


def digest(file: BufferedReader) -> str:
    """Return the sha256 of a file from its start."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _require_database(settings: config.Settings, database: engine.Database) -> None:
    if database.file is not None and not database.file.exists():
        raise errors.DatabaseUnavailable(
            "There is no database yet.",
            why=f"{settings.home if settings.embedded_database else database.file} holds none.",
            hint="`orch config paths` says where everything lies.",
        )


class _GoneMeanwhile(Exception):
    """A checkpoint went between the look at its row and that at its file."""


class _Taking:
    """One backup in the making; takes the rows as `dump.Sink`."""

    def __init__(self, settings: config.Settings, path: Path, hear: Hear, *, with_artifacts: bool) -> None:
        self._root, self._with_artifacts = settings.artifact_dir, with_artifacts
        self._root_id = artifacts.known_id(self._root) if with_artifacts else None
        self._path, self._hear = path, hear
        self._held: dict[str, BufferedReader] = {}
        self._resources = ExitStack()
        self._left_out: list[LeftOut] = []
        self._tries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def take(self, database: engine.Database, writer: archive.Writer) -> Manifest:
        """Write all but the manifest, and return it."""
        self._writer = writer
        while True:
            with contextlib.suppress(_GoneMeanwhile):
                dump.dump(database, self)
                break
        kept = list(self._files())
        listing = self._writer.add("artifacts.jsonl", _listed(kept)) if self._root_id else None
        return Manifest(
            format=FORMAT,
            orch=metadata.version("orch"),
            made_at=self._moment,
            revision=self._contents.revision,
            database="sqlite" if database.file else "postgresql",
            states=dict(self._contents.states),
            tables=tuple(self._tables),
            root=self._root_id,
            listing=listing,
            files=len(kept),
            file_bytes=sum(part.bytes for part in kept),
            left_out=tuple(self._left_out),
            elsewhere=sum(point.root != self._root_id for point in self._contents.checkpoints),
        )

    def begin(self, contents: dump.Contents) -> None:
        """Take what there is, before any row: hold the files that may go, and see whether all has room."""
        if self._with_artifacts and not self._root_id:
            _require_no_files(contents, self._root)
        self._resources.close()
        self._held.clear()
        self._writer.begin()
        self._tables: list[Table] = []
        self._contents, self._moment = contents, datetime.now(UTC)
        self._wanted = [point for point in contents.checkpoints if self._root_id and point.root == self._root_id]
        self._hold()
        sizes = Sizes(
            database=contents.bytes,
            files=len(self._wanted),
            file_bytes=sum(point.bytes for point in self._wanted),
            free=files.free(self._path.parent),
        )
        _require_room(sizes, self._path)
        self._hear(sizes)

    def table(self, name: str, columns: tuple[str, ...], lines: Iterator[bytes]) -> None:
        """Take the rows of a table."""
        count = 0

        def counted() -> Iterator[bytes]:
            nonlocal count
            for line in lines:
                count += 1
                yield line

        part = self._writer.add(f"{TABLES}/{name}.jsonl", counted())
        self._tables.append(Table(name=name, columns=columns, rows=count, part=part))

    def _hold(self) -> None:
        for point in [point for point in self._wanted if point.goes_on][:_MOST_HELD]:
            try:
                self._held[point.path] = self._resources.enter_context(self._open(point.path))
            except FileNotFoundError:
                self._tries += 1
                if self._tries < _TRIES:  # it is not in a later look any more
                    raise _GoneMeanwhile from None
            except OSError:
                continue  # its turn comes, with the reason

    def _open(self, path: str) -> BufferedReader:
        failpoints.reach("backup.open")
        full = self._root / path
        if not full.parent.resolve().is_relative_to(self._root.resolve()):
            raise OSError("it lies outside of the artifact folder")
        # Never a link, and no wait for whoever writes to a pipe.
        opened = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(opened, "rb")
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            file.close()
            raise OSError("it is no file")
        return file

    def _files(self) -> Iterator[archive.Part]:
        """Write the checkpoints, and the logs beside them; yield each that is in the archive."""
        total, done, folders = sum(point.bytes for point in self._wanted), 0, set()
        for point in self._wanted:
            part = self._checkpoint(point)
            if part is not None:
                folders.add("/".join(point.path.split("/")[:2]))
                yield part
            done += point.bytes
            self._hear(Doing(done=done, total=total, unit="bytes"))
        for folder in sorted(folders):
            part = self._log(f"{folder}/{layout.LOG}")
            if part is not None:
                yield part

    def _checkpoint(self, point: dump.Checkpoint) -> archive.Part | None:
        wrong, damaged = fault(point.path), True
        with ExitStack() as closing:
            try:
                if wrong is None:
                    held = self._held.pop(point.path, None)
                    file = closing.enter_context(held or self._open(point.path))
                    wrong = _difference(file, point)
            except FileNotFoundError:
                wrong, damaged = "it is gone", False
            except OSError as error:
                wrong = error.strerror or str(error)
            if wrong is None:  # what fails from here on leaves half a part behind: it ends the backup
                return self._add(point.path, file, point.bytes, pack=False, sha256=point.sha256)
        self._left_out.append(LeftOut(path=point.path, why=wrong, damaged=damaged))
        return None

    def _log(self, path: str) -> archive.Part | None:
        """Write a log as far as it goes now; None where none can be read. The database has the beginning of it."""
        with ExitStack() as closing:
            try:
                file = closing.enter_context(self._open(path))
                size = os.fstat(file.fileno()).st_size
                digest(file)
            except OSError:
                return None
            return self._add(path, file, size, pack=True)

    def _add(
        self, path: str, file: BufferedReader, size: int, *, pack: bool, sha256: str | None = None
    ) -> archive.Part:
        part = self._writer.add(f"{FILES}/{path}", _pieces(path, file, size), pack=pack)
        if sha256 is not None and part.sha256 != sha256:
            raise errors.OrchError(f"{path} has changed while it was copied.", hint="Nothing is left of the backup.")
        return part


def _require_no_files(contents: dump.Contents, root: Path) -> None:
    """Raise where rows refer to checkpoints: of a folder without an id nobody knows whether it has them."""
    if contents.checkpoints:
        count = len(contents.checkpoints)
        raise errors.OrchError(
            f"{root} is no artifact folder that can be read, and the database lists "
            f"{count} {'checkpoint' if count == 1 else 'checkpoints'}.",
            why=f"It has no readable file {artifacts.ROOT_ID_FILE}: a disk may not be mounted.",
            hint="Mount it, or set ORCH_ARTIFACTS. --without-artifacts keeps the rows alone.",
        )


def _require_room(sizes: Sizes, path: Path) -> None:
    needed = sizes.database + sizes.file_bytes
    if needed > sizes.free:
        raise errors.OrchError(
            f"There is no room for the backup at {path}.",
            why=f"It may take {needed:,} bytes, and {sizes.free:,} are free.",
            hint="Write it to another disk, or --without-artifacts.",
        )


def _difference(file: BufferedReader, point: dump.Checkpoint) -> str | None:
    size = os.fstat(file.fileno()).st_size
    if size != point.bytes:
        return f"it has {size:,} bytes, not {point.bytes:,}"
    return None if digest(file) == point.sha256 else "its sha256 is another"


def _pieces(path: str, file: BufferedReader, size: int) -> Iterator[bytes]:
    try:
        file.seek(0)
        failpoints.reach("backup.read")
        while size and (piece := file.read(min(_PIECE, size))):
            size -= len(piece)
            yield piece
    except OSError as error:
        raise errors.OrchError(
            f"{path} cannot be read to its end.",
            why=error.strerror or str(error),
            hint="Nothing is left of the backup: say it again. --without-artifacts keeps the rows alone.",
        ) from error


def _listed(parts: Iterable[archive.Part]) -> Iterator[bytes]:
    for part in parts:
        fields: Mapping[str, object] = part.model_dump() | {"name": part.name.removeprefix(f"{FILES}/")}
        yield json.dumps(fields, separators=(",", ":")).encode() + b"\n"
