"""Where the unix sockets of a home lie: one folder for all of them, the same for every process of the home."""

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from orchestrator import config, errors

#: Bytes that the kernel takes of a socket's path.
LONGEST_PATH = 107
#: Bytes of `fork-PID-KEY.sock`, with room to grow.
LONGEST_NAME = 36


def path(settings: config.Settings, name: str) -> Path:
    """Return where the socket `name` lies; raises InvalidSetting as `folder` does."""
    return folder(settings) / name


def broker(settings: config.Settings) -> Path:
    """Return the socket of the embedded broker; raises InvalidSetting as `folder` does."""
    return path(settings, "broker.sock")


def folder(settings: config.Settings) -> Path:
    """Return the folder of all sockets: the run folder, or a short one where their paths would be long.

    It follows from the home and the user alone, so that a cron job finds what a login has started.

    Raises:
        InvalidSetting: the short folder is there, and others can reach into it.

    """
    if len(os.fsencode(settings.run_dir / ("x" * LONGEST_NAME))) <= LONGEST_PATH:
        return settings.run_dir
    short = _short(settings)
    _refuse_foreign(short)
    return short


def tidy(settings: config.Settings) -> None:
    """Remove the short folder where there is one and no socket is left in it: it lies outside of the home."""
    with contextlib.suppress(OSError):
        _short(settings).rmdir()


def _short(settings: config.Settings) -> Path:
    digest = hashlib.sha256(os.fsencode(settings.home.absolute())).hexdigest()[:16]
    return config.SHARED / f"orch-{os.getuid()}-{digest}"


def _refuse_foreign(short: Path) -> None:
    # Its name is no secret, and everybody may make folders in /tmp.
    try:
        found = short.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise errors.InvalidSetting(
            f"The folder {short} for sockets is not safe to use.",
            why="It must be a folder of this user with the mode 0700: others could answer in the broker's place.",
            hint="Remove it, or choose a home folder with a shorter path.",
        )
