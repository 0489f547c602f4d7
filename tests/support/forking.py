"""A fork server, as a node starts it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator import config
from tests.support.waiting import until
from worker import children

_COLD = "import sys; from worker import forkserver; forkserver.PRELOAD = {}; sys.exit(forkserver.main())"


@contextmanager
def server(socket: Path, *, preload: Sequence[str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the process of a fork server that listens on `socket`, and end it.

    To `preload` what a test needs takes less time than all that a node does, torch among it, without which none trains.
    """
    how = ("-m", "worker.forkserver") if preload is None else ("-c", _COLD.format(tuple(preload)))
    process = subprocess.Popen(
        [sys.executable, *how, "--socket", str(socket)],
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
