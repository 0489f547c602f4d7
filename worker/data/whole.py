"""Archives that are whole on this host: those that lie there, and downloaded ones that wait to be unpacked.

<key>.sha256, beside one that waits, says what was downloaded: whoever finds both goes on with it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator import errors, failpoints
from worker.refusals import refused

Report = Callable[[int, int | None], None]  #: (bytes so far, bytes in all where known)

_CHUNK = 256 * 1024
_NOTE = ".sha256"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file, and what it is."""

    path: Path
    sha256: str


def checked(path: Path, *, sha256: str | None, label: str, report: Report) -> Archive:
    """Return an archive that lies on this host already.

    Raises:
        StageFailed: bad_input, when it has another sha256.

    """
    failpoints.reach("local.read")
    found = _read(path.open("rb"), path.stat().st_size, report)
    if isinstance(found, OSError):
        raise found
    if sha256 not in {None, found}:
        raise wrong_digest(label, found, sha256)
    return Archive(path=path, sha256=found)


def note(archive: Path, sha256: str) -> None:
    """Leave beside an archive what it is, or will be once it has its name."""
    failpoints.reach("whole.note")
    archive.with_suffix(_NOTE).write_text(sha256, encoding="ascii")


def taken_up(archive: Path, *, sha256: str | None, report: Report) -> Archive | None:
    """Return the archive that an earlier process has noted, read anew; one that is another by now is removed."""
    try:
        failpoints.reach("whole.read")
        noted = archive.with_suffix(_NOTE).read_text(encoding="ascii")
        total = archive.stat().st_size
        failpoints.reach("whole.open")
        file = archive.open("rb")
    except (OSError, ValueError):
        return None
    found = _read(file, total, report)
    if isinstance(found, OSError) or found != noted or sha256 not in {None, found}:
        discard(archive)
        return None
    return Archive(path=archive, sha256=found)


def discard(archive: Path) -> None:
    """Remove a downloaded archive."""
    failpoints.reach("whole.discard")
    for path in (archive, archive.with_suffix(_NOTE)):
        path.unlink(missing_ok=True)


def wrong_digest(label: str, found: str, wanted: str | None, *, kind: str = "sha256") -> errors.StageFailed:
    """Return the error that says that a file has another digest than was given."""
    return refused(
        f"{label} is not the file that was asked for.",
        why=f"Its {kind} is {found}, not {wanted}.",
        hint=f"Correct the {kind} that was given, or find out who changed the file.",
    )


def _read(file: BinaryIO, total: int, report: Report) -> str | OSError:
    """Return the sha256 of a file of so many bytes, or why it cannot be read to its end."""
    digest, done = hashlib.sha256(), 0
    with file:
        while True:
            try:
                piece = file.read(_CHUNK)
            except OSError as error:
                return error
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            done += len(piece)
            report(done, total)  # what goes wrong in there is no fault of the archive
