"""Tensors as a file has them: copied into memory that is laid out like the file, and is used again for the next ones.

The format is safetensors', https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header in
JSON, then the tensors one behind the other, those of large numbers first, so that all are aligned.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

_WORDS = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
#: The header is filled up with spaces to a multiple of so many bytes.
_ALIGNMENT = 8
#: Bytes of a piece: few enough for a processor's cache, and so many that who writes seldom takes Python's lock from the
#: steps. With a quarter of it those of a tiny network took a tenth longer meanwhile, not a twentieth.
_PIECE = 2**21
#: Bytes from which on a tensor is copied by NumPy.
_LARGE = 2**16


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Where a tensor lies: bytes from `start` on, up to `end`."""

    name: str
    dtype: torch.dtype
    shape: torch.Size
    start: int
    end: int

    def entry(self) -> str:
        """Return its entry of the header."""
        told = {"dtype": _WORDS[self.dtype], "shape": list(self.shape), "data_offsets": [self.start, self.end]}
        return f"{_json(self.name)}:{_json(told)}"


@dataclass(frozen=True, kw_only=True)
class Held:
    """Copies of tensors, as they were; to be used before the next ones are held in the same room.

    `arrived` returns once they are there: a GPU copies while the program goes on.
    """

    tensors: dict[str, torch.Tensor]
    arrived: Callable[[], object]
    content: torch.Tensor  #: all their bytes, as they lie in the file
    parts: tuple[_Part, ...]
    entries: str  #: of the header

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """Return what the file begins with, with these words in its header."""
        header = f'{{"__metadata__":{_json(dict(metadata))},{self.entries}}}'.encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        return len(header).to_bytes(8, "little") + header

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield what lies behind the header, in order and uncopied: pieces of numbers of one dtype.

        A processor's cache keeps a piece, so that who looks at it twice reads the memory once.
        """
        for dtype, group in itertools.groupby(self.parts, lambda part: part.dtype):
            first, *others = group
            numbers = self.content[first.start : (others or [first])[-1].end].view(dtype)
            if len(numbers):
                yield from torch.split(numbers, _PIECE // dtype.itemsize)


def finite(numbers: torch.Tensor) -> bool:
    """Whether all of some numbers are finite; looked at by NumPy, whose one thread leaves torch's to the training."""
    if not numbers.dtype.is_floating_point:
        return True
    values = (numbers.float() if numbers.dtype is torch.bfloat16 else numbers).numpy()  # which does not know it
    with np.errstate(invalid="ignore"):  # one that is not finite is an extreme, or makes both NaN
        return math.isfinite(values.min()) and math.isfinite(values.max())


class Room:
    """Memory for copies of tensors on a device; made for the first ones, and again where others come than before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: list[tuple[str, torch.dtype, torch.Size]] = []
        self._views: dict[str, torch.Tensor] = {}
        self._arrays: list[np.ndarray | None] = []

    @torch.no_grad()
    def hold(self, tensors: Mapping[str, torch.Tensor]) -> Held:
        """Copy tensors, over those that were held before.

        A GPU copies into memory that the kernel leaves in place, in the order of its work: the next step waits for
        that, for it is about to change the statistics of BatchNorm, and the program does not.
        https://docs.pytorch.org/docs/stable/notes/cuda.html; never run.
        """
        known = [(name, value.dtype, value.shape) for name, value in tensors.items()]
        if known != self._known:
            self._lay_out(known)
        large = []
        for view, array, value in zip(self._views.values(), self._arrays, tensors.values(), strict=True):
            if array is None:
                view.copy_(value, non_blocking=True)
            else:
                large.append((array, value.numpy()))
        _copy(large)
        arrived: Callable[[], object] = _at_once
        if self._device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            event.record()
            arrived = event.synchronize
        return Held(
            tensors=self._views,
            arrived=arrived,
            content=self._content,
            parts=self._parts,
            entries=self._entries,
        )

    def _lay_out(self, known: list[tuple[str, torch.dtype, torch.Size]]) -> None:
        # The old memory goes before the new comes.
        self._views, self._arrays, self._content = {}, [], torch.empty(0, dtype=torch.uint8)
        parts, end = [], 0
        for name, dtype, shape in sorted(known, key=lambda each: (-each[1].itemsize, each[0])):
            start, end = end, end + shape.numel() * dtype.itemsize
            parts.append(_Part(name=name, dtype=dtype, shape=shape, start=start, end=end))
        content = torch.empty(end, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        placed = {part.name: part for part in parts}
        for name, dtype, shape in known:
            part = placed[name]
            self._views[name] = content[part.start : part.end].view(dtype).view(shape)
        self._arrays = [self._array(view) for view in self._views.values()]
        self._known, self._content, self._parts = known, content, tuple(parts)
        self._entries = ",".join(part.entry() for part in parts)

    def _array(self, view: torch.Tensor) -> np.ndarray | None:
        """Return a large tensor of a CPU as NumPy's, which does not know bfloat16."""
        large = view.nbytes >= _LARGE and self._device.type == "cpu" and view.dtype is not torch.bfloat16
        return view.numpy() if large else None


def _copy(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy the second of each pair over the first, by two threads where the training has more than one.

    Memory limits the copying, and one core alone does not use all of it. Torch's threads would meet at the end of each
    of hundreds of tensors, which takes three times as long beside a busy process; and NumPy's way of copying asks less
    of the memory.
    """
    left = iter(pairs)  # each takes the next one: a thread that comes late finds less to do

    def copy() -> None:
        for place, value in left:
            np.copyto(place, value)

    if len(pairs) <= 1 or torch.get_num_threads() == 1:  # a tiny network has no large tensors, a GPU copies its own
        copy()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="copying") as second:
        beside = second.submit(copy)
        copy()
    beside.result()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _at_once() -> None:
    """Return: what a CPU has copied is there."""
