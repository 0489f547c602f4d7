"""A Valkey server of a test's own on a TCP port of loopback, with any settings; killed, frozen and started at will."""

import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from orchestrator import config
from orchestrator.queue import embedded
from tests.support.waiting import until


class Server:
    """The server; a context manager. `settings` are lines of its configuration file."""

    def __init__(self, folder: Path, *settings: str, password: str | None = None) -> None:
        self._reserved = socket.socket()  # bound and deaf: no other process gets the port, whether it runs or not
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])
        self.folder = folder
        self._password = password
        self._file = folder / "valkey.conf"
        own = (f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", 'save ""')
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text("\n".join([*own, *settings, ""]), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reserved.close()

    @property
    def url(self) -> str:
        account = "" if self._password is None else f":{self._password}@"
        return f"redis://{account}127.0.0.1:{self.port}/0"

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, password=self._password, socket_timeout=10)

    def start(self) -> None:
        binary = embedded.binary(config.Settings(home=self.folder))
        log = self._file.with_suffix(".log")
        self._process = subprocess.Popen([binary, self._file, "--logfile", log], stdin=subprocess.DEVNULL)
        until(self._listens, seconds=60)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> Any:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
