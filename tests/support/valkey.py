"""A Valkey server of a test's own on a TCP port of loopback, with any settings; killed, frozen and started at will."""

import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from orchestrator import config
from orchestrator.queue import embedded
from tests.support import ports
from tests.support.waiting import until


class Server:
    """The server; a context manager. `settings` are lines of its configuration file."""

    def __init__(self, folder: Path, *settings: str, password: str | None = None) -> None:
        self._reserved = ports.reserved()
        self.port = ports.number(self._reserved)
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
        return redis.Redis(port=self.port, password=self._password, socket_timeout=60)

    def start(self) -> None:
        binary = embedded.binary(config.Settings(home=self.folder))
        log = self._file.with_suffix(".log")
        process = subprocess.Popen([binary, self._file, "--logfile", log], stdin=subprocess.DEVNULL)
        self._process = process
        until(lambda: process.poll() is not None or self._listens(), seconds=60)
        assert process.poll() is None, log.read_text("utf-8")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> Any:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
