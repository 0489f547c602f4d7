import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config
from tests.support.waiting import until
from worker import node


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A warm fork server, as a node starts it; yields its socket."""
    path = tmp_path_factory.mktemp("fork") / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.forkserver", "--socket", str(path)],
        stdin=subprocess.PIPE,
        env=config.child_environment(config.Settings(), **node.FORK_SERVER_ENVIRONMENT),
        cwd=Path(__file__).parents[3],
    )
    with process:
        until(path.exists, seconds=60)
        yield path
        assert process.poll() is None, "the fork server died"
