"""A training in a process of the fork server against the same one in this process, which has none of its settings."""

import os
import socket
import struct
from pathlib import Path

import psutil
import pytest
import torch

from tests.unit.worker.training import support
from worker import children, protocol
from worker.launcher import Launcher
from worker.training import stage

pytestmark = pytest.mark.slow


def _behind(path: Path) -> psutil.Process:
    """Return the process that listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(str(path))
        told = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return psutil.Process(struct.unpack("3i", told)[0])


def test_the_fork_servers_settings_change_no_bit(fork_server: Path, tmp_path: Path) -> None:
    data = support.dataset(tmp_path / "pictures")
    recipe = support.spec(data=data.path, image_size=32, network="densenet_bc_40_12", epochs=1)
    here, there = support.assignment(tmp_path, recipe), support.assignment(tmp_path, recipe, attempt=2)
    Path(there.attempt_dir).mkdir(parents=True)
    follower = support.Follower()
    log = Path(there.attempt_dir) / "log.txt"
    environment = _behind(fork_server).environ()  # which its processes share
    with Launcher(fork_server).start("worker.training.stage:main_train", there, log=log) as process:
        while not isinstance(message := protocol.heard(process.connection.recv_bytes()), protocol.Ended):
            follower.send(message)
    assert children.ALLOCATOR.items() <= environment.items()
    assert not children.ALLOCATOR.keys() & dict(os.environ).keys()  # noqa: TID251 - what this process was started with

    before, alone = torch.get_num_threads(), support.Follower()
    try:
        stage.train(data, here, alone)
    finally:
        torch.set_num_threads(before)
    assert follower.steps == alone.steps
    assert support.same(follower.last(tmp_path)[1], alone.last(tmp_path)[1])
