"""What a CPU does between the convolutions of a DenseNet, in kernels of orch's own: fused.cpp, compiled on the host.

Steps between convolutions wait for memory. torch's BatchNorm, ReLU, concatenation and their gradients go through the
maps before a dense layer some eighteen times, these six times, and five times once for all layers that read a map
(`worker.models.shared` says how).
"""

import contextlib
import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from orchestrator import environ
from worker import processor

_SOURCE = Path(__file__).with_name("fused.cpp")

#: Nothing that changes what is computed, but for errno and the flags of floating point exceptions, which nobody reads.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")

#: Seconds for a compiler that takes two; a stop waits as long.
_PATIENCE = 30

#: That of every BatchNorm of a DenseNet here: torch's.
EPS = 1e-5

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_NUMBER, _LONG, _POINTER, _DOUBLE = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
_OF_ROWS = (_LONG, _LONG, _NUMBER)  #: rows, channels, threads
_MOMENTS = (_POINTER, _LONG)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "orch_moments": (_NUMBER, _POINTER, _LONG, _POINTER, _LONG, *_OF_ROWS, _DOUBLE, *_MOMENTS),
    "orch_follow": (*_MOMENTS, _LONG, _LONG, _POINTER, _POINTER, _DOUBLE, *[_POINTER] * 4),
    "orch_normalise": (_NUMBER, _POINTER, _LONG, _POINTER, _LONG, _LONG, *_OF_ROWS, _POINTER, _POINTER, _NUMBER),
    "orch_gather": (
        *(_NUMBER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _POINTER, _LONG, _NUMBER),
        *(*_OF_ROWS, *_MOMENTS, _POINTER, _POINTER, _POINTER, _NUMBER, *[_POINTER] * 4),
    ),
    "orch_finish": (
        *(_NUMBER, _POINTER, _LONG, _NUMBER, _POINTER, _LONG, _POINTER),
        *(*_OF_ROWS, *_MOMENTS, _POINTER, _POINTER, _NUMBER, _POINTER, _POINTER),
    ),
}


def key() -> str:
    """Return what the compiled kernels depend on, beside the compiler: where it differs they are compiled anew."""
    told = (_SOURCE.read_text(encoding="utf-8"), *_FLAGS, processor.MODEL, processor.FEATURES)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]


def built(folder: Path) -> "Kernels":
    """Return the kernels, compiled into a folder that is its owner's alone unless they are there.

    Raises:
        OSError: there is no compiler, or what it made cannot be loaded.
        RuntimeError: the compiler fails; with what it said.

    """
    library = folder / "fused.so"
    with contextlib.suppress(OSError):  # it is not there yet
        return Kernels(library)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # the compiler's own files lie there as well
        draft = Path(scratch) / library.name
        command = [*environ.compiler(), *_FLAGS, str(_SOURCE), "-o", str(draft)]
        done = subprocess.run(  # noqa: S603 - the compiler that the user has
            command,
            env={**environ.variables(), "TMPDIR": scratch},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(library)
    return Kernels(library)


class Norm(NamedTuple):
    """A BatchNorm of a batch, and what follows it; of each channel, in fp32."""

    moments: torch.Tensor  #: (3, channels), as `Kernels.moments` returns them
    weight: torch.Tensor
    affine: torch.Tensor  #: (2, channels): weight / sqrt(variance + eps), and the bias - mean * that
    relu: bool = False
    pooled: tuple[int, int] = (0, 0)  #: height and width of maps of which each 2 x 2 pixels become their average


class Kernels:
    """The kernels. Maps and their gradients are in fp32, bf16 or fp16; all that is of a channel is in fp32.

    They are pictures (N, channels, H, W) in channels_last, or rows (pixels, channels), which may lie apart.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        for name, signature in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = signature, None
        self._library = loaded
        #: By which one machine code is told from another, which may round otherwise.
        self.code = hashlib.sha256(library.read_bytes()).hexdigest()[:12]

    def moments(self, maps: torch.Tensor, *, to: torch.Tensor, copy: torch.Tensor | None = None) -> None:
        """Put mean, biased variance and 1 / sqrt(variance + eps) into `to`, (3, channels); copy the maps on the way."""
        copied = (None, 0) if copy is None else _place(copy)
        self._library.orch_moments(_TYPES[maps.dtype], *_place(maps), *copied, *_size(maps), EPS, *_place(to))

    def follow(self, module: nn.BatchNorm2d, moments: torch.Tensor, *, pixels: int) -> torch.Tensor:
        """Return what a BatchNorm does to maps of these moments (`Norm.affine`); its running statistics follow.

        Raises:
            ValueError: where a channel has a single number.

        """
        if pixels == 1:
            raise ValueError("BatchNorm needs more than one number of each channel")
        state: Any = module  # which has statistics and a momentum
        affine = torch.empty(2, module.num_features)
        self._library.orch_follow(
            *(*_place(moments), pixels, module.num_features, module.weight.data_ptr(), module.bias.data_ptr()),
            *(state.momentum, state.running_mean.data_ptr(), state.running_var.data_ptr(), *_two(affine)),
        )
        state.num_batches_tracked.add_(1)
        return affine

    def normalise(self, maps: torch.Tensor, norm: Norm, *, to: torch.Tensor) -> None:
        """Put what a norm makes of maps into `to`, which has a quarter of the pixels where they are pooled."""
        self._library.orch_normalise(
            *(_TYPES[maps.dtype], *_place(maps), to.data_ptr(), *norm.pooled, *_size(to)),
            *(*_two(norm.affine), norm.relu),
        )

    def gather(
        self,
        gradient: torch.Tensor,
        maps: torch.Tensor,
        norm: Norm,
        *,
        sums: torch.Tensor,
        total: torch.Tensor | None = None,
        fresh: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of weight and bias, and keep what those of the maps are made of.

        With g the gradient before ReLU and pooling, the weight times the sums of g and of g * (maps - mean) are added
        to `sums` (2, channels), and the weight times g to `total` (pixels, channels), where there is one; `fresh`: it
        stands there alone.
        """
        of_weight, of_bias = torch.empty_like(norm.weight), torch.empty_like(norm.weight)
        self._library.orch_gather(
            *(_TYPES[maps.dtype], *_place(gradient), *norm.pooled, *_place(maps)),
            *((None, 0) if total is None else _place(total)),
            *(fresh, *_size(maps), *_place(norm.moments), norm.weight.data_ptr(), *_two(norm.affine), norm.relu),
            *(of_weight.data_ptr(), of_bias.data_ptr(), *_two(sums)),
        )
        return of_weight, of_bias

    def finish(
        self,
        gradient: torch.Tensor,
        maps: torch.Tensor,
        *,
        moments: torch.Tensor,
        sums: torch.Tensor,
        to: torch.Tensor,
        norm: Norm | None = None,
    ) -> None:
        """Put the gradient of maps into `to`, of what was gathered: a `total`, or of a single norm its gradient."""
        affine, relu = ((None, None), False) if norm is None else (_two(norm.affine), norm.relu)
        self._library.orch_finish(
            *(_TYPES[gradient.dtype], *_place(gradient), _TYPES[maps.dtype], *_place(maps), to.data_ptr()),
            *(*_size(maps), *_place(moments), *affine, relu, *_two(sums)),
        )


def _place(maps: torch.Tensor) -> tuple[int, int]:
    """Return where they lie, and from row to row."""
    return maps.data_ptr(), maps.stride(0) if maps.ndim == 2 else maps.shape[1]  # noqa: PLR2004 - rows


def _size(maps: torch.Tensor) -> tuple[int, int, int]:
    channels = maps.shape[1]
    return maps.numel() // channels, channels, torch.get_num_threads()


def _two(vectors: torch.Tensor) -> tuple[int, int]:
    """Return where the first of two vectors lies, and where the second."""
    first = vectors.data_ptr()
    return first, first + vectors.stride(0) * vectors.itemsize
