"""What a node leaves in its home so that others find it: lock and pid file, sockets, locks, the tally of its jobs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from orchestrator import config, draining, errors, failpoints, sockets
from orchestrator.core import layout

#: How long a look at the lock may take on a busy machine.
_LOOK_SECONDS = 1.0


def prepare(settings: config.Settings) -> None:
    """Make the folders that a node needs before all else; raises InvalidSetting where it may not write there."""
    folders = (settings.home, settings.run_dir, sockets.folder(settings))
    try:
        failpoints.reach("node.mkdir")
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(error.filename or settings.home, why=error.strerror) from error
    for folder in folders:
        if not os.access(folder, os.W_OK):
            raise _unusable(folder, why="It is read-only.")


def _unusable(folder: Path | str, *, why: str | None) -> errors.InvalidSetting:
    return errors.InvalidSetting(
        f"The folder {folder} cannot be used.", why=why, hint="Set ORCH_HOME to a folder that you may write to."
    )


def forget(settings: config.Settings, key: str) -> None:
    """Remove the files of a node that goes, or has gone."""
    for path in sockets.folder(settings).glob(f"fork-*-{key}.sock"):
        path.unlink(missing_ok=True)
    (settings.run_dir / f"{key}.permits").unlink(missing_ok=True)
    for path in settings.run_dir.glob(f"{key}.*{layout.DEVICE}"):
        path.unlink(missing_ok=True)


@contextmanager
def only_one(settings: config.Settings) -> Iterator[None]:
    """Hold the home's lock and pid file: `up` and `down` go by them.

    Raises:
        OrchError: another node holds them.

    """
    failpoints.reach("node.lock")
    with (settings.run_dir / "node.lock").open("w") as lock:
        if not _taken(lock.fileno()):
            raise errors.OrchError(
                "It is up already.",
                why=f"A node holds {lock.name}.",
                hint="`orch status` shows it, `orch down` ends it.",
            )
        pid_file = settings.run_dir / "node.pid"
        try:
            failpoints.reach("node.pid")
            draining.path(settings).unlink(missing_ok=True)  # of one that was killed, whose pid may come again
            pid_file.write_text(str(os.getpid()), encoding="ascii")
            yield
        finally:
            pid_file.unlink(missing_ok=True)
            draining.path(settings).unlink(missing_ok=True)


def _taken(lock: int) -> bool:
    """Take the lock unless a node holds it; who only looks (`orch up`, `down`, `doctor`) holds it for a moment."""
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS / 20)
        else:
            return True
