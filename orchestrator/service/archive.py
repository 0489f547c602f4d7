"""One file with many parts, of which no byte counts that was not checked: a zip archive with a manifest of its own.

The manifest is JSON that names each part with its size and sha256; the archive's comment has the manifest's. The file
gets its name when all of it is on the disk. What is read back believes the manifest alone, never the sizes that the
zip format claims: `unzip` can open the file, but nobody has to.
"""

import contextlib
import fcntl
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import pydantic

from orchestrator import disk, errors, failpoints

#: Name of the manifest in the archive, and the most bytes that one may have.
_MANIFEST, _LARGEST_MANIFEST = "manifest.json", 64 * 2**20

#: Bytes of one line of a part, at most: a difference of git's, or the confusion of very many classes.
_LONGEST_LINE = 64 * 2**20

_PIECE = 2**20

#: What Python's zipfile raises on files that are none of ours.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


class Part(pydantic.BaseModel):
    """A part of an archive, as the manifest has it."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")


class Head(pydantic.BaseModel):
    """What every manifest begins with, whatever orch wrote it."""

    format: int
    orch: str


M = TypeVar("M", bound=Head)


class Writer:
    """An archive that is being written into a draft."""

    def __init__(self, draft: IO[bytes], kind: str) -> None:
        self._draft, self._kind = draft, kind
        self._archive = zipfile.ZipFile(draft, "w")

    def begin(self) -> None:
        """Begin anew, with no part."""
        self.drop()
        self._draft.seek(0)
        self._draft.truncate()
        self._archive = zipfile.ZipFile(self._draft, "w")

    def drop(self) -> None:
        """Let go of the draft: an archive that is not closed would write its end into it when it is collected."""
        self._archive.fp = None

    def add(self, name: str, pieces: Iterable[bytes], *, pack: bool = True) -> Part:
        """Write a part; `pack` off is for what does not become smaller, such as weights."""
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED if pack else zipfile.ZIP_STORED
        info.external_attr = 0o600 << 16
        digest, size = hashlib.sha256(), 0
        with self._archive.open(info, "w", force_zip64=True) as part:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                failpoints.reach("backup.write")
                part.write(piece)
        return Part(name=name, bytes=size, sha256=digest.hexdigest())

    def end(self, manifest: Head) -> None:
        """Write the manifest, which is the last part."""
        made = self.add(_MANIFEST, [manifest.model_dump_json(indent=1).encode()])
        self._archive.comment = f"{self._kind} {made.sha256}".encode()
        self._archive.close()


@contextlib.contextmanager
def writing(path: Path, *, kind: str, force: bool) -> Iterator[Writer]:
    """Yield the writer of a file that is there, whole and on the disk, once `end` was called and all went well.

    What a process that was killed has left beside it, the next one writes over.

    Raises:
        UsageError: the file exists, and not `force`; or it cannot lie there.
        OrchError: another process writes it at the moment, or the disk does not take it.

    """
    path = path.absolute()
    _check_place(path, force=force)
    draft = path.with_name(f".{path.name}.part")
    try:
        with _drafted(draft) as file:
            writer = Writer(file, kind)
            try:
                yield writer
                file.flush()
                os.fsync(file.fileno())
                draft.replace(path)
            except BaseException:
                writer.drop()
                draft.unlink(missing_ok=True)
                raise
        disk.sync_folder(path.parent)
    except OSError as error:
        raise errors.OrchError(
            f"{path} cannot be written.",
            why=error.strerror or str(error),
            hint="Nothing of it is left. Free some space, or write it to another disk.",
        ) from error


def _check_place(path: Path, *, force: bool) -> None:
    try:
        if path.is_dir() or not path.parent.is_dir():
            what = f"{path} is a folder." if path.is_dir() else f"There is no folder {path.parent}."
            raise errors.UsageError(what, hint="Name a file in a folder that is there.")
        if path.exists() and not path.is_file():  # such as /dev/null, in whose place there would be an archive
            raise errors.UsageError(f"{path} is no file that could be replaced.", hint="Name another one.")
        if path.exists() and not force:
            raise errors.UsageError(f"{path} exists.", hint="Name another file, or give --force to replace it.")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise errors.UsageError(f"{path} cannot be written.", why=error.strerror, hint="Name another file.") from error


@contextlib.contextmanager
def _drafted(draft: Path) -> Iterator[IO[bytes]]:
    opened = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "w+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(opened), draft.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:  # or another one has just got its name, and is not to be cut
            raise errors.OrchError(
                f"Another process writes {draft.name.removeprefix('.').removesuffix('.part')} at this moment.",
                hint="Wait for it, or name another file.",
            )
        file.truncate()
        yield file


class Reader:
    """An archive to be read. Every method raises OrchError for a file that is not whole, or is none of ours."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self._kind = path, kind
        with self._explaining():
            self._archive = zipfile.ZipFile(path)
        self._known = {info.filename: info for info in self._archive.infolist()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def manifest(self, model: type[M], *, form: int) -> M:
        """Return the manifest, of which this orch knows the formats up to `form`."""
        name, _, sha256 = self._archive.comment.decode(errors="replace").rpartition(" ")
        if name != self._kind:
            raise self.fault(f"it is no {self._kind.removeprefix('orch ')} of orch's")
        if len(self._known) != len(self._archive.infolist()):
            raise self.fault("two parts have one name")
        with self._explaining():
            content = self._open(_MANIFEST).read(_LARGEST_MANIFEST + 1)
            if len(content) > _LARGEST_MANIFEST or hashlib.sha256(content).hexdigest() != sha256:
                raise self.fault("its manifest is damaged")
            head = Head.model_validate_json(content)
            if head.format > form:
                raise errors.OrchError(
                    f"{self.path} is of format {head.format}; this orch reads {form}.",
                    why=f"orch {head.orch} wrote it.",
                    hint="Install that orch, or a newer one.",
                )
            return model.model_validate_json(content)

    def require_parts(self, parts: Iterable[str]) -> None:
        """Check that it has these parts and no other."""
        wanted = {_MANIFEST, *parts}
        if missing := sorted(wanted - self._known.keys()):
            raise self.fault(f"{missing[0]!a} is missing")
        if strange := sorted(self._known.keys() - wanted):
            raise self.fault(f"{strange[0]!a} is in it, of which its manifest says nothing")

    def pieces(self, part: Part) -> Iterator[bytes]:
        """Yield the bytes of a part; the last piece only where all of them are those that were written."""
        digest, size = hashlib.sha256(), 0
        with self._explaining(), self._open(part.name) as file:
            last = b""
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                if size > part.bytes:
                    break
                if last:
                    yield last
                last = piece
        if size != part.bytes or digest.hexdigest() != part.sha256:
            raise self.fault(f"{part.name!a} is damaged")
        if last:
            yield last

    def lines(self, part: Part) -> Iterator[bytes]:
        """Yield the lines of a part, each with its end; the error for damage comes at the latest behind the last."""
        rest = b""
        for piece in self.pieces(part):
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                raise self.fault(f"a line of {part.name!a} is too long")
            yield from whole
        if rest:
            yield rest

    def fault(self, why: str) -> errors.OrchError:
        """Return the error that says why the file cannot be used."""
        return errors.OrchError(f"{self.path} cannot be used: {why}.", hint="Take another copy of it.")

    def _open(self, name: str) -> IO[bytes]:
        info = self._known.get(name)
        if info is None:
            raise self.fault(f"{name!a} is missing")
        if info.flag_bits & 1:
            raise self.fault("it is encrypted")
        return self._archive.open(info)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise errors.NotFound(f"There is no file {self.path}.", hint="Check its name.") from error
        except pydantic.ValidationError as error:
            first: Any = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise self.fault(f"its manifest cannot be read: {where}: {first['msg']}") from error
        except _BROKEN as error:
            said = str(error).splitlines()
            raise self.fault(f"it is no whole archive ({said[0] if said else type(error).__name__})") from error
        except OSError as error:
            raise errors.OrchError(f"{self.path} cannot be read.", why=error.strerror or str(error)) from error
