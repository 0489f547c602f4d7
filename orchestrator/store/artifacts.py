"""An artifact root: this host's folder of checkpoints and logs, a folder a job, known to the database by an id."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator import failpoints
from orchestrator.core import ids
from orchestrator.store import peoplebase

ROOT_ID_FILE = ".orch-root"


def root_id(root: Path) -> str:
    """Return the id of an artifact root, making it and giving it one at the first use."""
    failpoints.reach("root.mkdir")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = root / ROOT_ID_FILE
    if not path.exists():
        _name(root, path)
    for draft in root.glob(f"{ROOT_ID_FILE}.*"):  # its writer was killed, or comes too late in any case
        draft.unlink(missing_ok=True)
    failpoints.reach("root.read")
    return path.read_text(encoding="ascii").strip()


def _name(root: Path, path: Path) -> None:
    draft = root / f"{ROOT_ID_FILE}.{secrets.token_hex(4)}"
    try:
        failpoints.reach("root.write")
        draft.write_text(secrets.token_hex(8), encoding="ascii")
        failpoints.reach("root.link")
        os.link(draft, path)  # whole at once, and only the first of several nodes succeeds
    except (FileExistsError, FileNotFoundError):  # another one was first, and may have removed this draft
        if not path.exists():
            raise
    finally:
        draft.unlink(missing_ok=True)


def known_id(root: Path) -> str | None:
    """Return the id of an artifact root; None where this host has none there."""
    with suppress(OSError):
        failpoints.reach("root.look")
        return (root / ROOT_ID_FILE).read_text(encoding="ascii").strip()
    return None


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; what somebody removes meanwhile is left out."""
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names)


def remove(root: Path, job_id: str) -> bool:
    """Remove the files of a deleted job below `root`; return whether none are left."""
    folder = root / job_id
    with suppress(OSError):
        failpoints.reach("artifacts.remove")
        shutil.rmtree(folder)
    return not folder.exists()


def sweep(store: peoplebase.People, root: Path) -> list[str]:
    """Remove what still lies below `root` of deleted jobs, and return their ids.

    Only what the database knows as deleted goes: the folder of a job it has never heard of may be another
    installation's.
    """
    with suppress(FileNotFoundError):
        folders = [name for name in os.listdir(root) if len(name) == ids.LENGTH]  # noqa: PTH208 - names are all it takes
        return sorted(job_id for job_id in store.deleted(folders) if remove(root, job_id))
    return []
