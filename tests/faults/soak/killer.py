"""What the soak does to the processes of an installation: whom it strikes, how, and when, by a seed."""

import contextlib
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import redis

from orchestrator.queue import embedded
from tests.support import running

#: How often each role is struck.
ROLES = {"training": 12, "slot": 5, "node": 2, "fork server": 2, "broker": 2, "database": 2}

#: How a process is struck; the other ways are a broker's and a database's own.
_BLOWS = {"KILL": 6, "STOP": 3, "TERM": 2}
_BROKER_BLOWS = {"KILL": 3, "KILL, data gone": 2, "FLUSHALL": 3, "STOP": 1}

#: Blows that begin a run, each of which kills a training: by the dice alone, a short one might cost no attempt.
_CERTAIN = 2

_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 0.2  #: a look reads the command lines of a tree of processes


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One blow that hit something."""

    at: float  #: seconds since the epoch
    role: str
    how: str
    node: int | None  #: pid of the node that the process belonged to
    folder: str | None = None  #: attempt directory of a training process


@dataclass
class Killer:
    """Strikes at what is there; `database` restarts a server, where there is one."""

    installed: running.Installation
    dice: random.Random
    database: Callable[[], None] | None
    blows: list[Blow] = field(default_factory=list)
    _frozen: list[threading.Timer] = field(default_factory=list)

    def strike(self) -> bool:
        """Choose a role, and strike one of its processes; whether there was one within a second."""
        roles = [role for role in ROLES if role != "database" or self.database]
        role = "training" if self._begins else self.dice.choices(roles, [ROLES[role] for role in roles])[0]
        if role == "database" and self.database is not None:
            self.blows.append(Blow(at=time.time(), role=role, how="immediate restart", node=None))
            self.database()
            return True
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (found := self._processes(role)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(psutil.Error):
            target = self.dice.choice(found)
            at, node, folder = time.time(), _node(target), _folder(target)
            how = self._broker(target) if role == "broker" else self._process(target)
            self.blows.append(Blow(at=at, role=role, how=how, node=node, folder=folder))
            return True
        return False

    @property
    def _begins(self) -> bool:
        return len(self.blows) < _CERTAIN

    def _processes(self, role: str) -> list[psutil.Process]:
        found = []
        for process in self._brokers() if role == "broker" else self._alive():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_STOPPED and _role(process) == role:
                    found.append(process)
        return found

    def _alive(self) -> Iterator[psutil.Process]:
        """Yield the nodes and all that they have started."""
        for node in self.installed.nodes:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(node.pid)
                yield from (process, *process.children(recursive=True))

    def _brokers(self) -> Iterator[psutil.Process]:
        """Yield the server at the home's socket, unless it does not answer: that one is struck already."""
        with contextlib.suppress(redis.RedisError, psutil.Error):
            yield psutil.Process(int(embedded.state(self.installed.settings)["process_id"]))

    def thaw(self) -> None:
        """Let everything go on that is frozen."""
        for timer in self._frozen:
            timer.cancel()
            timer.function()

    def _process(self, target: psutil.Process) -> str:
        how = "KILL" if self._begins else self.dice.choices(list(_BLOWS), list(_BLOWS.values()))[0]
        if how == "STOP":
            return self._freeze(target)
        target.send_signal(signal.SIGKILL if how == "KILL" else signal.SIGTERM)
        return how

    def _freeze(self, target: psutil.Process) -> str:
        past = self.dice.random() < 0.3
        seconds = self.installed.settings.lease + self.dice.uniform(0.5, 1.5) if past else self.dice.uniform(0.1, 1)
        target.suspend()
        timer = threading.Timer(seconds, lambda: _resume(target))
        self._frozen.append(timer)
        timer.start()
        return "STOP past the lease" if past else "STOP"

    def _broker(self, target: psutil.Process) -> str:
        how = self.dice.choices(list(_BROKER_BLOWS), list(_BROKER_BLOWS.values()))[0]
        if how == "STOP":
            return self._freeze(target)
        if how == "FLUSHALL":
            with contextlib.suppress(Exception), embedded.client(self.installed.settings) as broker:
                broker.flushall()
            return how
        target.kill()
        if how != "KILL":
            shutil.rmtree(self.installed.settings.home / "broker", ignore_errors=True)
        return how


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    if "worker.app" in words:
        return "slot"
    if "worker.forkserver" in words:
        parent = process.parent()
        return "fork server" if parent is not None and "worker" in parent.cmdline() else "training"
    if "worker" in words:
        return "node"
    return "broker" if any("unixsocket:" in word for word in words) else "other"


def _node(process: psutil.Process) -> int | None:
    return next((one.pid for one in (process, *process.parents()) if "worker" in one.cmdline()), None)


def _folder(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):
        logs = [file.path for file in process.open_files() if file.path.endswith("/log.txt")]
        return logs[0].rpartition("/")[0] if logs else None
    return None


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.resume()
