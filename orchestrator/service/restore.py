"""A backup into a place that has no jobs: all of the file is checked before a byte is written.

Its files come first, each whole under its name, then all rows in one transaction. Who is killed before that leaves
files that no row refers to: another `restore` finds them whole, and goes on behind them.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import pydantic

from orchestrator import config, disk, errors, failpoints
from orchestrator.core import layout
from orchestrator.core.clock import SystemClock
from orchestrator.service import archive, backup, files, health, node, query, submit
from orchestrator.service.doing import Doing
from orchestrator.store import artifacts, dump, migrations, rehome, sql

#: How much more than its rows a database takes, for its indexes.
_INDEXED = 2

_PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a backup holds, all of it checked."""

    path: Path
    bytes: int
    manifest: backup.Manifest
    files: tuple[archive.Part, ...]  #: by their paths below the artifact root

    @property
    def row_bytes(self) -> int:
        """Bytes of the rows as text."""
        return sum(table.part.bytes for table in self.manifest.tables)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was restored, and where to."""

    inside: Inside
    database: str
    artifacts: Path | None  #: folder of its files; None where it has none
    root: str | None  #: id of that folder
    states: Mapping[str, int]  #: jobs by their state now
    requeued: tuple[str, ...]  #: ids of the jobs that ran when the backup was made
    forgotten: tuple[str, ...]  #: ids of the jobs of whose checkpoints some are not in it


def look(settings: config.Settings, path: Path, *, hear: backup.Hear) -> Inside:
    """Return what is in a backup that could be restored here, all of it checked; nothing is written.

    Raises: what `restore` does.

    """
    with archive.Reader(path, backup.KIND) as reader:
        manifest = _manifest(reader)
        if node.is_locked(settings):
            raise _node_runs(settings)
        _require_vacant(settings)
        inside = _checked(reader, manifest, hear)
        _require_place(settings, inside)
    return inside


def restore(settings: config.Settings, path: Path, *, hear: backup.Hear) -> Restored:
    """Put a backup into the installation that the settings name, which has no jobs and no worker that lives.

    Raises:
        OrchError: the file is not whole, or the disk has no room, or files are in the way.
        IllegalMove: the installation has jobs, or a node runs.
        SchemaMismatch: the backup, or the database, is of a newer orch.
        DatabaseUnavailable: it is out of reach; the files may be there already.

    """
    with archive.Reader(path, backup.KIND) as reader:
        manifest = _manifest(reader)
        _require_vacant(settings)
        node.prepare(settings)
        with _alone(settings):
            inside = _checked(reader, manifest, hear)
            _require_place(settings, inside)
            root = artifacts.root_id(settings.artifact_dir) if manifest.root is not None else None
            _write_files(settings.artifact_dir, reader, inside, hear)
            if settings.embedded_database:
                sql.make_home(settings)
            settled = _load(settings, reader, inside, root)
    return Restored(
        inside=inside,
        database=health.database(settings),
        artifacts=settings.artifact_dir if root else None,
        root=root,
        states=settled.states,
        requeued=settled.requeued,
        forgotten=settled.forgotten,
    )


def _manifest(reader: archive.Reader) -> backup.Manifest:
    manifest = reader.manifest(backup.Manifest, form=backup.FORMAT)
    if manifest.revision > migrations.HEAD:
        raise errors.SchemaMismatch(
            f"The backup has the schema version {manifest.revision}; this orch knows {migrations.HEAD}.",
            why=f"orch {manifest.orch} wrote it.",
            hint="Install that orch, or a newer one.",
        )
    return manifest


def _checked(reader: archive.Reader, manifest: backup.Manifest, hear: backup.Hear) -> Inside:
    """Read every byte of the archive, and return what it holds."""
    found = tuple(_listed(reader, manifest))
    tables = [table.part for table in manifest.tables]
    if [part.name for part in tables] != [f"{backup.TABLES}/{table.name}.jsonl" for table in manifest.tables]:
        raise reader.fault("a table has another name than its part")
    if (len(found), sum(part.bytes for part in found)) != (manifest.files, manifest.file_bytes):
        raise reader.fault("its manifest counts other files than it lists")
    inside = [_inside(part) for part in found]
    listing = [manifest.listing.name] if manifest.listing else []
    reader.require_parts([*(part.name for part in (*tables, *inside)), *listing])
    total, done = sum(part.bytes for part in (*tables, *inside)), 0
    for part in (*tables, *inside):
        for piece in reader.pieces(part):
            done += len(piece)
            hear(Doing(done=done, total=total, unit="bytes to check"))
    return Inside(path=reader.path.absolute(), bytes=reader.path.stat().st_size, manifest=manifest, files=found)


def _listed(reader: archive.Reader, manifest: backup.Manifest) -> Iterator[archive.Part]:
    if (manifest.listing is None) != (manifest.root is None):
        raise reader.fault("it has files of no folder, or a folder of no files")
    seen = set()
    for line in reader.lines(manifest.listing) if manifest.listing else ():
        try:
            part = archive.Part.model_validate_json(line)
        except pydantic.ValidationError as error:
            raise reader.fault("a line of its list of files cannot be read") from error
        if (wrong := backup.fault(part.name)) is not None:
            raise reader.fault(f"{part.name!a}: {wrong}")
        if part.name in seen:
            raise reader.fault(f"{part.name!a} is listed twice")
        seen.add(part.name)
        yield part


def _inside(part: archive.Part) -> archive.Part:
    return part.model_copy(update={"name": f"{backup.FILES}/{part.name}"})


def _require_vacant(settings: config.Settings) -> None:
    if not settings.embedded_database or (settings.home / "orch.db").exists():
        dump.look(settings.database, _vacancy(settings))


def _vacancy(settings: config.Settings) -> dump.Check:
    """Return the check that the database may be filled."""
    silence = max(settings.lease, query.MISSED_BEATS * settings.heartbeat)
    return functools.partial(rehome.require_vacant, name=health.database(settings), silence=silence)


@contextlib.contextmanager
def _alone(settings: config.Settings) -> Iterator[None]:
    """Keep a node of this home from starting, and another `restore`."""
    failpoints.reach("restore.lock")
    with (settings.run_dir / "node.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _node_runs(settings) from None
        yield


def _node_runs(settings: config.Settings) -> errors.IllegalMove:
    return errors.IllegalMove(
        f"A node, or another `orch restore`, runs in {settings.home}.",
        why="It would claim jobs while they are being restored.",
        hint="`orch down` drains it.",
    )


def _require_place(settings: config.Settings, inside: Inside) -> None:
    """Raise where a file is in the way, or there is no room for what is not there yet."""
    root = settings.artifact_dir
    missing = 0
    for part in inside.files:
        if not (root / part.name).parent.resolve().is_relative_to(root.resolve()):
            raise errors.OrchError(f"{root / part.name} would lie outside of the artifact folder.")
        if not _is_there(root / part.name, part):
            missing += part.bytes
    wanted = [(root, missing)]
    if settings.embedded_database:
        wanted.append(
            (settings.home, _INDEXED * inside.row_bytes + (missing if root.is_relative_to(settings.home) else 0))
        )
    for folder, needed in wanted:
        if needed > (free := files.free(folder)):
            raise errors.OrchError(
                f"There is no room for the backup in {folder}.",
                why=f"It takes about {needed:,} bytes, and {free:,} are free.",
                hint="Free some space, or set ORCH_ARTIFACTS or ORCH_HOME to a folder on a larger disk.",
            )


def _is_there(path: Path, part: archive.Part) -> bool:
    """Whether a file is there as it is in the backup; raises OrchError where it is another.

    A log may have grown since.
    """
    try:
        failpoints.reach("restore.look")
        with path.open("rb") as file:
            more = os.fstat(file.fileno()).st_size - part.bytes
            if (more == 0 or (more > 0 and path.name == layout.LOG)) and _begins_with(file, part):
                return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise errors.OrchError(f"{path} is in the way.", why=error.strerror) from error
    raise errors.OrchError(
        f"{path} is in the way.",
        why="It has another content than in the backup, and may be all that is left of another installation.",
        hint="Move it away, or set ORCH_ARTIFACTS to an empty folder.",
    )


def _begins_with(file: BufferedReader, part: archive.Part) -> bool:
    whole, left = hashlib.sha256(), part.bytes
    while left and (piece := file.read(min(_PIECE, left))):
        whole.update(piece)
        left -= len(piece)
    return whole.hexdigest() == part.sha256


def _write_files(root: Path, reader: archive.Reader, inside: Inside, hear: backup.Hear) -> None:
    done, folders = 0, set()
    try:
        for part in inside.files:
            path = root / part.name
            if not _is_there(path, part):
                folders |= {folder for folder in path.parents if folder.is_relative_to(root)}
                _put(path, reader, part)
            done += part.bytes
            hear(Doing(done=done, total=inside.manifest.file_bytes, unit="bytes"))
        for folder in sorted(folders):
            failpoints.reach("restore.folder")
            disk.sync_folder(folder)
    except OSError as error:
        raise errors.OrchError(
            f"The files cannot be restored to {root}.",
            why=error.strerror or str(error),
            hint="No job was restored. Mend it and say it again: what is there already stays.",
        ) from error


def _put(path: Path, reader: archive.Reader, part: archive.Part) -> None:
    """Write a file, which gets its name when all of it is on the disk; what a killed one left is written over."""
    draft = path.with_name(f".{path.name}.restoring")
    try:
        failpoints.reach("restore.write")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "wb") as file:
            for piece in reader.pieces(_inside(part)):
                file.write(piece)
            file.flush()
            failpoints.reach("restore.fsync")
            os.fsync(file.fileno())
        failpoints.reach("restore.rename")
        draft.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _load(settings: config.Settings, reader: archive.Reader, inside: Inside, root: str | None) -> rehome.Settled:
    manifest = inside.manifest
    arrival = rehome.Arrival(
        actor=submit.user(settings),
        made_at=manifest.made_at,
        old_root=manifest.root,
        new_root=root,
        paths=frozenset(part.name for part in inside.files),
    )
    sources = [
        dump.Source(name=table.name, columns=table.columns, lines=functools.partial(reader.lines, table.part))
        for table in manifest.tables
    ]
    try:
        settled: rehome.Settled = dump.load(
            settings.database,
            manifest.revision,
            sources,
            check=_vacancy(settings),
            settle=functools.partial(rehome.settle, arrival=arrival, time=SystemClock()),
        )
    except dump.Unfit as error:
        raise reader.fault(str(error)) from error
    return settled
