"""Failpoints: named places, directly before a call of a file, a database or a network, where a test makes things fail.

Inert unless the variable ORCH_TEST_FAILPOINTS names a folder. There a place is armed by a file of its name that holds
an action: `kill` (SIGKILL to the process that comes by), `enospc` and `eio` (OSError), `raise` (RuntimeError),
`sleep 2`, `hold` (until there is a file `<name>.go`), `pass`, and `nan` where the place asks for it. Whoever comes by
renames the file, which succeeds in one thread only, and acts: by the file's first line, of several, which leaves the
others for those who come later. After the last one the file is `<name>.fired`. A line such as `each sleep 2` stays, for
whoever comes.
"""

import errno
import functools
import os
import signal
import threading
import time
from pathlib import Path

from orchestrator import environ

#: Every place, and what is about to happen there. The store's methods add theirs: see `add_transaction`.
PLACES: dict[str, str] = {
    "archive.check": "the archive's members are compared with its bytes",
    "archive.create": "a member's file is made in the staging folder",
    "archive.folder": "the folder of a member is made",
    "archive.fsync": "a member's file is brought to the disk",
    "archive.mkdir": "the folder of the unpacked archive is made",
    "archive.open": "the archive is opened",
    "archive.write": "a piece of a member is written",
    "artifacts.remove": "the files of a deleted job are removed",
    "ask.start": "the process that answers a command is started",
    "attempt.mkdir": "the directory of an attempt is made",
    "attempt.sweep": "the directory of a dead attempt is removed",
    "attempt.tidy": "what a dead attempt left beside its checkpoints is removed",
    "backup.open": "a checkpoint or log is opened for a backup",
    "backup.read": "a checkpoint or log, which was compared before, is copied into a backup",
    "backup.write": "a piece of a backup, or of a bundle, is written",
    "bell.answer": "the process that rings says how it went",
    "bell.ask": "a command asks its process to ring",
    "bell.fork": "a command forks the process that rings",
    "broker.mkdir": "the folders of the embedded broker are made",
    "broker.ping": "the embedded broker is asked whether it is there",
    "broker.shutdown": "the embedded broker is shut down",
    "broker.start": "the embedded broker is started",
    "cache.clear": "the staging folder of a data set is removed",
    "cache.done": "the progress of a download that has ended is removed",
    "cache.drop": "the partial download of a cancelled job is removed",
    "cache.find": "the record of a source is read",
    "cache.folder": "the rename of a data set is brought to the disk",
    "cache.hold": "the manifest of a data set is locked by who reads the set",
    "cache.known": "the manifest of a data set is read",
    "cache.lock": "the lock of a source is taken",
    "cache.mkdir": "the folders of the cache are made",
    "cache.progress": "the progress of a download is left for those who wait",
    "cache.publish": "a data set is renamed to its final place",
    "cache.stamp": "size and time of a local archive are read",
    "cache.wait": "the progress of another's download is read",
    "checkpoint.folder": "the rename of a checkpoint is brought to the disk",
    "checkpoint.fsync": "a checkpoint is brought to the disk",
    "checkpoint.mkdir": "the folder of the checkpoints is made",
    "checkpoint.open": "the temporary file of a checkpoint is made",
    "checkpoint.read": "a checkpoint is read",
    "checkpoint.rename": "a checkpoint gets its name",
    "checkpoint.write": "a checkpoint is written",
    "child.start": "a process of the node is started",
    "decoded.folder": "the rename of an index of decoded pictures is brought to the disk",
    "decoded.fsync": "an index of decoded pictures is brought to the disk",
    "decoded.open": "the temporary file of an index of decoded pictures is made",
    "decoded.rename": "an index of decoded pictures gets its name",
    "decoded.write": "an index of decoded pictures is written",
    "device.lock": "the lock of a GPU is taken",
    "doorbell.length": "the doorbells that lie unheard are counted",
    "doorbell.send": "a doorbell is sent",
    "doorbell.server": "the broker is asked how it keeps doorbells",
    "download.connect": "the server of a download is asked",
    "download.discard": "a partial download is removed",
    "download.folder": "the rename of an archive is brought to the disk",
    "download.fsync": "a downloaded archive is brought to the disk",
    "download.note": "the validator of a download is written beside it",
    "download.open": "the partial download is opened",
    "download.read": "a piece of a download is received",
    "download.rename": "a downloaded archive gets its name",
    "download.resume": "an earlier partial download is read",
    "download.sum": "a downloaded file is compared with its md5",
    "download.write": "a piece of a download is written",
    "drain.read": "a node that drains, or its slot, reads how long it may take",
    "drain.write": "`orch down` leaves for the node how long it may drain",
    "forkserver.accept": "the fork server takes a request",
    "forkserver.bind": "the fork server makes its socket",
    "forkserver.fork": "the fork server forks",
    "forkserver.receive": "the fork server reads a request",
    "forkserver.tell": "the fork server tells of a child",
    "git.read": "what git has said of the working folder is read",
    "git.start": "git is asked about the working folder",
    "health.touch": "the node says that it lives",
    "home.mkdir": "the home folder is made",
    "journal.fsync": "the journal is brought to the disk",
    "journal.open": "the journal of an attempt is opened",
    "journal.rename": "the journal, whose lock is held by now, gets its name",
    "journal.unlink": "a journal is removed",
    "journal.write": "a record is added to the journal",
    "launcher.connect": "a slot connects to the fork server",
    "launcher.log": "the log of an attempt is opened for its process",
    "launcher.send": "a slot sends its request to the fork server",
    "leftover.read": "the pid of a dead supervisor's process is read",
    "leftover.unlink": "the pid file of a dead supervisor's process is removed",
    "living.forget": "the lock file of a dead worker is removed",
    "living.hold": "a worker takes the lock that says that it lives",
    "living.look": "the lock of another worker is looked at",
    "local.read": "an archive on this host is read",
    "log.touch": "the log of an attempt is made",
    "logtail.read": "what is new in a log is read",
    "manifest.folder": "the rename of a data set's manifest is brought to the disk",
    "manifest.fsync": "a data set's manifest is brought to the disk",
    "manifest.open": "the temporary file of a data set's manifest is made",
    "manifest.rename": "a data set's manifest gets its name",
    "manifest.write": "a data set's manifest is written",
    "named.look": "a file of a well-known data set that is here is looked at",
    "named.pack": "the archive of a well-known data set is made",
    "named.read": "a downloaded file of a well-known data set is opened",
    "named.sum": "the archive of a well-known data set is read",
    "node.lock": "the lock of the home's one node is taken",
    "node.mkdir": "the folders of a node are made",
    "node.pid": "the pid file of the home's one node is written",
    "notice.send": "a webhook is told of a job",
    "oom.group": "the control group of a process is looked up",
    "oom.read": "the kernel's counter of kills for memory is read",
    "permits.create": "the tally of --max-jobs is made",
    "permits.open": "the tally of --max-jobs is opened",
    "permits.write": "the tally of --max-jobs is written",
    "pick.read": "what was picked on this host before is read",
    "pick.write": "what was picked is remembered on this host",
    "picture.admit": "a picture is read for the first time",
    "picture.open": "a picture is read for a batch",
    "pid.write": "the pid of an attempt's process is written",
    "pipe.obey": "a process reads what its supervisor wishes",
    "pipe.receive": "a supervisor reads what its process says",
    "pipe.send": "one end of the pipe says something",
    "pixels.drop": "the decoded pictures of another set are removed",
    "pixels.fsync": "decoded pictures are brought to the disk",
    "pixels.lock": "the lock of decoded pictures is taken",
    "pixels.look": "the index of decoded pictures is read",
    "pixels.mkdir": "the folder of decoded pictures is made",
    "pixels.open": "the file of decoded pictures is opened",
    "pixels.read": "a decoded picture is read",
    "pixels.write": "a decoded picture is written",
    "pool.lock": "a slot takes the lock of a device",
    "ranks.fail": "a rank that failed tells the first one why",
    "ranks.fork": "the first rank of a training forks another",
    "ranks.hear": "a rank reads where to begin",
    "ranks.listen": "the first rank reads why another one has ended",
    "ranks.tell": "the first rank tells another one where to begin",
    "restore.folder": "the names of restored files are brought to the disk",
    "restore.fsync": "a restored file is brought to the disk",
    "restore.lock": "the lock of the home's one node is taken by who restores",
    "restore.look": "a file of a backup that may be there already is looked at",
    "restore.rename": "a restored file gets its name",
    "restore.write": "a file of a backup is written",
    "retention.unlink": "a checkpoint that retention let go is removed",
    "root.link": "the id of an artifact root gets its name",
    "root.look": "the id of an artifact root that may not be there is read",
    "root.mkdir": "an artifact root is made",
    "root.read": "the id of an artifact root is read",
    "root.write": "the draft of an artifact root's id is written",
    "schema.lock": "the lock of an upgrade is taken",
    "source.folder": "the rename of a source's record is brought to the disk",
    "source.fsync": "a source's record is brought to the disk",
    "source.mkdir": "the folder of the sources' records is made",
    "source.open": "the temporary file of a source's record is made",
    "source.rename": "a source's record gets its name",
    "source.write": "a source's record is written",
    "train.loss": "the loss of a step is looked at; `nan` spoils it",
    "up.log": "the log of a detached node is opened",
    "up.mkdir": "the home of a node is made",
    "up.pid": "the lock of the home's one node is looked at",
    "up.start": "a detached node is started",
    "weights.done": "the progress of a download of weights that has ended is removed",
    "weights.lock": "the lock of a file of weights is taken",
    "weights.look": "a file of weights that is here is compared with its digest",
    "weights.mkdir": "the folder of downloaded weights is made",
    "weights.read": "a file of weights is read",
    "whole.discard": "a downloaded archive that was refused, or is another by now, is removed",
    "whole.note": "the sha256 of a downloaded archive is written beside it",
    "whole.open": "an archive that an earlier attempt has downloaded is opened",
    "whole.read": "the sha256 of an archive that an earlier attempt may have downloaded is read",
}

_ERRNOS = {"enospc": errno.ENOSPC, "eio": errno.EIO}


def reach(name: str) -> bool:
    """Come by a place; True where the caller is to spoil its own value (`nan`).

    Raises:
        OSError: the place is armed with `enospc` or `eio`.
        RuntimeError: it is armed with `raise`.

    """
    if folder() is None:
        return False
    return _act(name)


def add_transaction(name: str, *, commits: bool) -> None:
    """Add the places of a transaction: `name`.begin, and where it writes also .commit and .committed."""
    PLACES[f"{name}.begin"] = "its transaction begins"
    if commits:
        PLACES[f"{name}.commit"] = "its transaction is committed"
        PLACES[f"{name}.committed"] = "its transaction has been committed, and nobody knows yet"


@functools.cache
def folder() -> Path | None:
    """Return the folder in which places are armed, None outside of tests."""
    named = environ.of_tests("ORCH_TEST_FAILPOINTS")
    return Path(named) if named else None


def _act(name: str) -> bool:
    action = _disarm(name)
    word, _, argument = action.partition(" ")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word in _ERRNOS:
        raise OSError(_ERRNOS[word], os.strerror(_ERRNOS[word]), f"failpoint {name}")
    if word == "raise":
        raise RuntimeError(f"failpoint {name}")
    if word == "sleep":
        time.sleep(float(argument))
    while word == "hold" and not Path(f"{folder()}/{name}.go").exists():
        time.sleep(0.01)
    return word == "nan"


def _disarm(name: str) -> str:
    """Return the action of an armed place, to one caller only; an empty text where it is not armed."""
    armed = Path(f"{folder()}/{name}")
    taken = armed.with_name(f"{name}.{os.getpid()}.{threading.get_ident()}")
    try:
        standing = armed.read_text(encoding="ascii").partition("\n")[0]
        if not standing or standing.startswith("each "):  # empty: it is just being written
            return standing.removeprefix("each ")
        armed.rename(taken)
    except FileNotFoundError:
        return ""
    action, *later = taken.read_text(encoding="ascii").splitlines()
    taken.write_text("\n".join(later), encoding="ascii")
    taken.rename(armed if later else armed.with_name(f"{name}.fired"))
    return action
