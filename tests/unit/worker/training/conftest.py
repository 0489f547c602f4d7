from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.worker.training import support
from worker import protocol


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> protocol.DatasetInfo:
    """Ten training and six validation pictures of two classes."""
    return support.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Put the process's thread count back: the engine sets it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The artifact root."""
    return tmp_path
