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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator import environ
from worker import processor

_SOURCE = Path(__file__).with_name("fused.cpp")

#: Nothing that changes what is computed, but for errno and the flags of floating point exceptions, which nobody reads.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")

#: Seconds for a compiler that takes two; a stop waits as long.
_PATIENCE = 30

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_NUMBER, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_OF_ROWS = (_LONG, _LONG, _NUMBER)  #: rows, channels, threads
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "orch_moments": (_NUMBER, _POINTER, _LONG, _POINTER, _LONG, *_OF_ROWS, _POINTER, _POINTER),
    "orch_normalise": (_NUMBER, _POINTER, _LONG, _POINTER, _LONG, _LONG, *_OF_ROWS, _POINTER, _POINTER, _NUMBER),
    "orch_gather": (
        *(_NUMBER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG, _POINTER, _LONG, _NUMBER),
        *_OF_ROWS,
        *(_POINTER, _POINTER, _POINTER, _POINTER, _NUMBER, _POINTER, _POINTER),
    ),
    "orch_finish": (
        *(_NUMBER, _POINTER, _LONG, _NUMBER, _POINTER, _LONG, _POINTER),
        *_OF_ROWS,
        *(_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _NUMBER),
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


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A BatchNorm of a batch, with what follows it: of each channel, in fp32."""

    mean: torch.Tensor
    inverse: torch.Tensor  #: 1 / sqrt(variance + eps)
    scale: torch.Tensor  #: the layer's weight * inverse
    shift: torch.Tensor  #: the layer's bias - mean * scale
    relu: bool
    pooled: tuple[int, int] = (0, 0)  #: height and width of maps of which each 2 x 2 pixels become their average


class Kernels:
    """The kernels. Maps and gradients are rows, (pixels, channels), in fp32, bf16 or fp16; the rest is in fp32.

    The numbers of a row lie side by side, the rows may lie apart.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        for name, signature in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = signature, None
        self._library = loaded

    def moments(self, maps: torch.Tensor, *, copy: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and biased variance of each channel; on the way the maps are copied to `copy`."""
        mean, variance = maps.new_empty(2, maps.shape[1], dtype=torch.float32)
        to = (None, 0) if copy is None else (copy.data_ptr(), copy.stride(0))
        self._library.orch_moments(*_place(maps), *to, *_size(maps), mean.data_ptr(), variance.data_ptr())
        return mean, variance

    def normalise(self, maps: torch.Tensor, norm: Norm) -> torch.Tensor:
        """Return what a norm makes of maps: as many rows, or a quarter where they are pooled."""
        height, width = norm.pooled
        images = len(maps) // (height * width) if width else 0
        made = maps.new_empty(images * (height // 2) * (width // 2) if width else len(maps), maps.shape[1])
        self._library.orch_normalise(
            *_place(maps),
            made.data_ptr(),
            *norm.pooled,
            *_size(made),
            norm.scale.data_ptr(),
            norm.shift.data_ptr(),
            norm.relu,
        )
        return made

    def gather(
        self,
        gradient: torch.Tensor,
        maps: torch.Tensor,
        norm: Norm,
        *,
        total: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        fresh: bool = False,
    ) -> torch.Tensor:
        """Return the sums of g and of g * (maps - mean), (2, channels), with g the gradient before ReLU and pooling.

        g * weight is added to `total` (pixels, channels), in fp32, where there is one; `fresh`: it stands there alone.
        """
        sums = maps.new_empty(2, maps.shape[1], dtype=torch.float32)
        to = (None, 0) if total is None else (total.data_ptr(), total.stride(0))
        self._library.orch_gather(
            *_place(gradient),
            *norm.pooled,
            *_place(maps)[1:],
            *to,
            fresh,
            *_size(maps),
            norm.scale.data_ptr(),
            norm.shift.data_ptr(),
            norm.mean.data_ptr(),
            None if weight is None else weight.data_ptr(),
            norm.relu,
            sums[0].data_ptr(),
            sums[1].data_ptr(),
        )
        return sums

    def finish(
        self, gradient: torch.Tensor, maps: torch.Tensor, norm: Norm, *, by: torch.Tensor, sums: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient of maps, `by` * (g - mean of g - normalised maps * mean of g * normalised maps).

        `sums` are those that were gathered, g is as there.
        """
        of_all = by * sums / len(maps)
        slope = of_all[1] * norm.inverse.square()
        made = maps.new_empty(maps.shape)
        self._library.orch_finish(
            *_place(gradient),
            *_place(maps),
            made.data_ptr(),
            *_size(maps),
            norm.scale.data_ptr(),
            norm.shift.data_ptr(),
            norm.mean.data_ptr(),
            by.data_ptr(),
            of_all[0].data_ptr(),
            slope.data_ptr(),
            norm.relu,
        )
        return made


def _place(maps: torch.Tensor) -> tuple[int, int, int]:
    """Return their type, where they lie, and from row to row."""
    return _TYPES[maps.dtype], maps.data_ptr(), maps.stride(0)


def _size(maps: torch.Tensor) -> tuple[int, int, int]:
    return *maps.shape, torch.get_num_threads()
