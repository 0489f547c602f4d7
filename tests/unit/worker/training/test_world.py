"""What goes wrong at a sum of all ranks is another rank's doing, or this one's own."""

import functools
import os

import pytest
import torch
from torch import distributed

from orchestrator import environ
from worker.data import shares
from worker.training import world


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Connection closed by peer"), world.Parted),
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), torch.AcceleratorError),
    ],
)
def test_only_a_peer_that_is_gone_is_told_as_one(
    error: Exception, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_values: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(distributed, "all_reduce", fails)
    with pytest.raises(told) as raised:
        world.World(shares.Share(ranks=2), patience=60).total(torch.ones(1))
    assert raised.type is told


def test_who_is_last_of_several_gpus_does_not_wait_for_the_others_to_part(monkeypatch: pytest.MonkeyPatch) -> None:
    parted: list[str] = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(distributed, "destroy_process_group", functools.partial(parted.append, device))
        world.leave(torch.device(device))
    assert parted == ["cpu"]


def test_ranks_listen_on_their_host_alone_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"NCCL_SOCKET_IFNAME": "eth0"}
    for before in ({}, told):
        variables = dict(before)
        monkeypatch.setattr(os, "environ", variables)
        environ.talk_on_loopback()
        assert variables == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} | before
