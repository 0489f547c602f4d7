"""A fork server, as a node starts it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator import config
from tests.support.waiting import until
from worker import children

#: Forks as well without torch, whose import takes longer than most tests.
_COLD = "import sys; from worker import forkserver; forkserver.PRELOAD = (); sys.exit(forkserver.main())"


@contextmanager
def server(socket: Path, *, warm: bool = True) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield the process of a fork server that listens on `socket`, and end it; only a `warm` one can train."""
    process = subprocess.Popen(
        [sys.executable, *(("-m", "worker.forkserver") if warm else ("-c", _COLD)), "--socket", str(socket)],
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
