"""A warm fork server, as a node starts it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator import config
from tests.support.waiting import until
from worker import children


@contextmanager
def server(socket: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the process of a fork server that listens on `socket`, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.forkserver", "--socket", str(socket)],
        stdin=subprocess.PIPE,
        env=config.child_environment(config.Settings(), **children.FORK_SERVER_ENVIRONMENT),
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            until(socket.exists, seconds=180)
            yield process
        finally:
            process.kill()
