"""A network's training pass, compiled: where a job asks for it, and never what a job fails for.

On a CPU it is `worker.models.shared`, whose kernels are compiled in a second and good for batches and pictures of any
size. Elsewhere it is made by torch.compile, https://docs.pytorch.org/docs/stable/generated/torch.compile.html, before
the first step of an attempt and for whole batches; a smaller last batch and smaller pictures of a beginning go the
usual way, and so does all that is measured. What is compiled stays on the host, beside its data sets, for the next
attempt: `orch gc` removes what none has used for long.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from orchestrator import environ
from worker.models import densenet, fused, shared
from worker.training import kernels, numerics

#: Who makes code of the pass for others: https://docs.pytorch.org/docs/stable/torch.compiler.html
BACKEND: str | Callable[..., object] = "inductor"

#: Characters of a compiler's complaint that people are told.
_SAID = 300

Pass = Callable[[torch.Tensor], torch.Tensor]


class Attempt(NamedTuple):
    """How it went: the pass, None where it cannot be compiled; what to tell; of orch's own kernels their `code`."""

    made: Pass | None
    said: str
    code: str = ""


def attempt(
    network: densenet.DenseNet, shape: tuple[int, ...], used: kernels.Kernels, device: torch.device, *, folder: Path
) -> Attempt:
    """Compile the pass for pictures of this shape (N, 3, H, W).

    The network is in training mode, and neither it nor any generator is changed. What is made is kept below `folder`.
    """
    began = time.monotonic()
    try:
        if device.type in kernels.OWN:
            own = _own_kernels(folder / fused.key())
            made: Pass = shared.Pass(network, own)
            code, of = own.code, "the steps between convolutions"
        else:
            made, code = _graph(network, shape, used, device, folder), ""
            of = f"for batches of {shape[0]} at {shape[-1]} pixels"
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and the network trains without
        said = " ".join(f"{type(error).__name__}: {error}".split("\n\n")[0].split())  # what follows is for developers
        return Attempt(None, f"not compiled, and computed the usual way: {said[:_SAID]}")
    return Attempt(made, f"compiled {of} in {time.monotonic() - began:.1f} s", code)


def _own_kernels(folder: Path) -> fused.Kernels:
    _own(folder)
    return fused.built(folder)


def _graph(
    network: densenet.DenseNet, shape: tuple[int, ...], used: kernels.Kernels, device: torch.device, folder: Path
) -> Pass:
    plain = used.model_copy(update={"compiled": False, "code": ""})  # a resumed training's says what it was
    what = (torch.__version__, network, shape, plain, device.type)
    folder /= hashlib.sha256(repr(what).encode()).hexdigest()[:32]
    _own(folder)
    environ.keep_compiled(folder)
    images = torch.zeros(shape, device=device).contiguous(memory_format=used.memory_format)
    # In one piece, so that it fails as a whole; for one shape, so that no step compiles anew.
    made: Pass = torch.compile(network, backend=BACKEND, fullgraph=True, dynamic=False)
    with _unchanged(network, device):
        with used.autocast(device):
            logits = made(images)
        logits.float().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    usual: Pass = network
    return lambda pixels: (made if pixels.shape == shape else usual)(pixels)


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
