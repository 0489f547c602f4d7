"""A network's training pass, compiled by torch.compile: where a job asks for it, and never what a job fails for.

https://docs.pytorch.org/docs/stable/generated/torch.compile.html. It is compiled for whole batches, before the first
step of an attempt; a smaller last batch, smaller pictures of a beginning and everything that is measured take the usual
way. What the compiler makes stays on the host, beside its data sets, for the next attempt: `orch gc` removes what none
has used for long.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from orchestrator import environ
from worker.models import densenet
from worker.training import kernels, numerics

#: Who makes code of the pass: https://docs.pytorch.org/docs/stable/torch.compiler.html
BACKEND: str | Callable[..., object] = "inductor"

#: Characters of a compiler's complaint that people are told.
_SAID = 300

Pass = Callable[[torch.Tensor], torch.Tensor]


def attempt(
    network: densenet.DenseNet, shape: tuple[int, ...], used: kernels.Kernels, device: torch.device, *, folder: Path
) -> tuple[Pass | None, str]:
    """Return the pass for pictures of this shape (N, 3, H, W), None where it cannot be compiled; and what to tell.

    The network is in training mode, and neither it nor any generator is changed. What is made is kept below `folder`.
    """
    began = time.monotonic()
    try:
        plain = used.model_copy(update={"compiled": False})  # a resumed training's says that it was
        what = (torch.__version__, network, shape, plain, device.type)
        made = _compiled(network, shape, used, device, folder / hashlib.sha256(repr(what).encode()).hexdigest()[:32])
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and the network trains without
        said = " ".join(f"{type(error).__name__}: {error}".split("\n\n")[0].split())  # what follows is for developers
        return None, f"not compiled, and computed the usual way: {said[:_SAID]}"
    return made, f"compiled for batches of {shape[0]} at {shape[-1]} pixels in {time.monotonic() - began:.0f} s"


def _compiled(
    network: densenet.DenseNet, shape: tuple[int, ...], used: kernels.Kernels, device: torch.device, folder: Path
) -> Pass:
    _own(folder)
    environ.keep_compiled(folder)
    images = torch.zeros(shape, device=device).contiguous(memory_format=used.memory_format)
    # In one piece, so that it fails as a whole; for one shape, so that no step compiles anew.
    made: Pass = torch.compile(network, backend=BACKEND, fullgraph=True, dynamic=False)
    with _unchanged(network, device):
        with used.autocast(device):
            logits = made(images)
        logits.float().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return made


def _own(folder: Path) -> None:
    """Make a folder that nobody else may write in, for the code that lies there is run; raises PermissionError."""
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = one.stat()
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{one} belongs to somebody else, or others may write in it")
    os.utime(folder)  # by which `worker.garbage` knows when it was used


@contextlib.contextmanager
def _unchanged(network: densenet.DenseNet, device: torch.device) -> Iterator[None]:
    """Put BatchNorm's statistics and the generators back to what they were; leave no gradient."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    drawn = numerics.generators(), numerics.generator_tensors(device)
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)
        numerics.restore_generators(*drawn, device)
