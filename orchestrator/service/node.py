"""The node of this host: starting it in the foreground or detached, finding it, draining it. It is never imported."""

import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config, draining, errors, failpoints, processes, sockets
from orchestrator.core import history
from orchestrator.core.jobs import Lease, Worker
from orchestrator.service import context, files, health, query
from orchestrator.store.base import Store

#: Seconds until a detached node has its broker, its schema and its first heartbeat: on a cold or busy disk torch alone
#: takes more than one minute to import.
START_SECONDS = 180.0

#: Seconds that a node may take beyond the drain's own deadline: to end slots that hang, and to give back their jobs.
DRAIN_MARGIN = 30.0
#: Seconds from a node's lock to its pid file, on a busy machine.
_PID_SECONDS = 5.0
#: Seconds between the signal that means "now" and the one that nobody can ignore.
_HURRY_SECONDS = 10.0

_POLL_SECONDS = 0.05

#: Makes a node hold the lock and the pid file of its home, by which `up` and `down` go.
ONLY_ONE = "--only-one"


@dataclass(frozen=True, kw_only=True)
class Started:
    """A node that runs."""

    pid: int
    log: Path
    was_running: bool


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What `stop` found and did."""

    pid: int | None  #: of the node that was stopped, None where none ran
    killed: bool  #: the deadline passed
    broker: bool  #: an embedded broker was shut down
    unsaved: int | None = 0  #: jobs that did not say that all was saved; None where the database cannot be asked


def command(*options: str) -> list[str]:
    """Return the command of a node; raises OrchError where the extra `worker` is not installed."""
    need_torch()
    # -P: a folder `worker` in the working directory is not ours.
    return [sys.executable, "-P", "-m", "worker", *options]


def need_torch() -> None:
    """Raise OrchError where the packages for training are missing."""
    if importlib.util.find_spec("torch") is None:
        raise errors.OrchError(
            "The packages for training are not installed here.",
            why="This is the command line alone; torch comes with the extra `worker`.",
            hint="pip install 'orch[worker]'",
        )


def run(settings: config.Settings, *options: str) -> None:
    """Become a node: this process is replaced."""
    line = command(*options)
    prepare(settings)
    sys.stdout.flush()
    os.execve(line[0], line, config.child_environment(settings))  # noqa: S606 - our own interpreter and module


def prepare(settings: config.Settings) -> None:
    """Make the home folder; raises InvalidSetting where it cannot hold the database."""
    if settings.embedded_database:
        files.refuse_network(settings.home)
    try:
        failpoints.reach("up.mkdir")
        for folder in (settings.home, settings.run_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise errors.InvalidSetting(
            f"The home folder {settings.home} cannot be used.",
            why=f"{error.strerror}: {error.filename or settings.home}",
            hint="Set ORCH_HOME to a folder that you may write to.",
        ) from error


def start(settings: config.Settings, store: Store) -> Started:
    """Start a detached node and return when its broker answers and its first heartbeat is in the database.

    Who is told to go before that takes the node along.

    Raises:
        OrchError: it ended or was not ready in time; says the last lines of its log.

    """
    line = command(ONLY_ONE)
    prepare(settings)
    log = settings.home / "node.log"
    running = pid(settings)
    if running is not None:
        return Started(pid=running, log=log, was_running=True)
    failpoints.reach("up.log")
    log.touch(mode=0o600)
    process = None
    try:
        with log.open("ab") as output, _interrupts_later():
            failpoints.reach("up.start")
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=config.child_environment(settings),
                cwd=settings.home,
                start_new_session=True,
            )
        return _up(settings, store, process, log)
    except (KeyboardInterrupt, SystemExit):
        if process is not None:
            process.terminate()
            process.wait(settings.drain + DRAIN_MARGIN)
        raise


def _up(settings: config.Settings, store: Store, process: "subprocess.Popen[bytes]", log: Path) -> Started:
    """Wait until the node that was started is ready, or the other one that was faster."""
    if not _until(lambda: process.poll() is not None or _ready(settings, store, process.pid), START_SECONDS):
        process.terminate()
        raise _no_start(
            f"It was not ready within {START_SECONDS:.0f} seconds: {_lacking(settings, store, process.pid)}.", log
        )
    if process.poll() is not None:
        other = _seen(settings)  # of two that are started at once, one gives way
        if other is None or not _until(lambda: _ready(settings, store, other), START_SECONDS):
            code = process.returncode
            raise _no_start(f"It ended with code {code}." if code else "It was told to stop before it was ready.", log)
        return Started(pid=other, log=log, was_running=True)
    return Started(pid=process.pid, log=log, was_running=False)


def stop(settings: config.Settings, *, deadline: float | None = None) -> Stopped:
    """Drain the node of this home, kill it when the deadline (seconds) has passed, shut the embedded broker down.

    Raises:
        OrchError: the node is not seen from here, or cannot be told of the deadline; nothing has happened.

    """
    from orchestrator.queue import embedded  # noqa: PLC0415 - the client library costs 0.15 s

    running = _seen(settings)
    if running is None and is_locked(settings):
        raise errors.OrchError(
            f"What runs in {settings.home} is not seen from here: nothing was stopped.",
            why=f"It holds {_lock(settings)}: a node in another container, or an `orch restore`.",
            hint="Say `orch down` where it runs.",
        )
    held = [] if running is None else _held(settings, running)
    killed = running is not None and not _drain(settings, running, deadline)
    broker = embedded.stop(settings) if settings.embedded_broker else False
    return Stopped(pid=running, killed=killed, broker=broker, unsaved=_unsaved(settings, held))


def pid(settings: config.Settings) -> int | None:
    """Return the pid of the node that holds this home's lock, None where none does, or none that is seen from here.

    In another container it has another number; and whoever died, or has the lock for a while, is no node.
    """
    found = _read_pid(settings.run_dir / "node.pid") if is_locked(settings) else None
    return found if found is not None and _holds_lock(settings, found) else None


def _holds_lock(settings: config.Settings, process: int) -> bool:
    with contextlib.suppress(OSError):
        return _lock(settings).resolve() in processes.opened(process)
    return False


def _lock(settings: config.Settings) -> Path:
    return settings.run_dir / "node.lock"


def is_locked(settings: config.Settings) -> bool:
    """Whether a node, or an `orch restore`, has this home for itself."""
    try:
        failpoints.reach("up.pid")
        with _lock(settings).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _seen(settings: config.Settings) -> int | None:
    """Return the pid of the node that has the lock, which it says a moment later; None where there is none."""
    _until(lambda: not is_locked(settings) or pid(settings) is not None, _PID_SECONDS)
    return pid(settings)


def _ready(settings: config.Settings, store: Store, node: int) -> bool:
    return _lacking(settings, store, node) is None


def _lacking(settings: config.Settings, store: Store, node: int) -> str | None:
    """Return what a node still lacks to be ready, in words."""
    if not any(_is(worker, node) for worker in query.living(store)):
        return "it is not in the database yet"
    if not _can_train(settings, node):
        return "its fork server has not come through its imports"
    broker = health.broker(settings)
    return None if broker.answers else f"the broker ({broker.where}) does not answer: {broker.why}"


def _can_train(settings: config.Settings, node: int) -> bool:
    """Whether the node's fork server has come through its imports: it listens then."""
    socket = sockets.path(settings, f"fork-{node}-{'?' * 16}.sock")
    return any(socket.parent.glob(socket.name))


def _is(worker: Worker, node: int) -> bool:
    return worker.identity.pid == node and worker.identity.host == os.uname().nodename


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Keep a Ctrl-C for later, since in the middle of the start of a process nobody would know of that process."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def _asked(settings: config.Settings) -> contextlib.AbstractContextManager[context.Context]:
    """Open the database as it is: the node that goes may be of an earlier orch, and must be able to write to it."""
    return context.opened(settings, create=False, upgrade=False)


def _held(settings: config.Settings, node: int) -> list[Lease] | None:
    """Return what the node works at, None where the database cannot be asked: it is stopped all the same."""
    try:
        with _asked(settings) as it:
            mine = {worker.identity.id for worker in query.living(it.store) if _is(worker, node)}
            return [lease for lease in it.store.leases() if lease.worker in mine]
    except errors.OrchError:
        return None


def _unsaved(settings: config.Settings, held: list[Lease] | None) -> int | None:
    """Return how many of the jobs went without their word that all was saved."""
    if not held:
        return None if held is None else 0
    try:
        with _asked(settings) as it:
            return sum(history.unsaved(it.store.events(lease.job_id), lease.attempt) for lease in held)
    except errors.OrchError:
        return None


def _drain(settings: config.Settings, node: int, deadline: float | None) -> bool:
    """Ask the node to go, again where it drains already, and wait; whether it went in time."""
    if deadline is not None:
        draining.tell(settings, node=node, seconds=deadline)
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(node, signal.SIGTERM)
    while pid(settings) == node:
        # Asked each time: another `orch down` may have given it more.
        if time.monotonic() > began + draining.seconds(settings, node=node) + DRAIN_MARGIN:
            _end(settings, node)
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _end(settings: config.Settings, node: int) -> None:
    """End a node that drains, with what it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(node, signal.SIGINT)  # to one that drains it means: now
    if not _until(lambda: pid(settings) != node, _HURRY_SECONDS):
        with contextlib.suppress(ProcessLookupError):
            os.kill(node, signal.SIGKILL)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _no_start(why: str, log: Path) -> errors.OrchError:
    with log.open(encoding="utf-8", errors="replace") as file:
        last = _words("".join(deque(file, maxlen=1)).strip())
    return errors.OrchError("The node did not start.", why=f"{why} Its last words: {last}", hint=f"Its log is {log}.")


def _words(line: str) -> str:
    """Return what a line of a log says to people: of an event, its sentence and why."""
    try:
        event = json.loads(line)
        return " ".join(str(event[name]) for name in ("event", "why") if event.get(name))
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
