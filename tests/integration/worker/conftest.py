from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import forking


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A warm fork server, as a node starts it; yields its socket."""
    path = tmp_path_factory.mktemp("fork") / "s"
    with forking.server(path) as process:
        yield path
        assert process.poll() is None, "the fork server died"
