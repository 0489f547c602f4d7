"""The weights of a network out of a checkpoint, as a safetensors file that is the same for the same weights.

A checkpoint holds more: the optimizer, generators, the epoch in work. Here its tensors of the network stand in the
order of their names, without gaps, so that the file's sha256 says whether two networks are equal to the last bit. The
format: https://huggingface.co/docs/safetensors#format. Nothing of torch is needed to read it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from orchestrator import errors

#: What the names of the weights begin with in a checkpoint, the first that there is: their average where one is kept.
_KINDS = ("ema.", "model.")

_LENGTH_BYTES, _ALIGNMENT = 8, 8
_LARGEST_HEADER = 100 * 2**20
_PIECE = 2**20


def pieces(path: Path, *, sha256: str) -> Iterator[bytes]:
    """Yield the bytes of the weights in the checkpoint at `path`, whose digest is known.

    Raises:
        OrchError: it is not the file that was recorded.

    """
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise _unusable(path, "its sha256 is another")
            yield from _pieces(file)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, "it is no checkpoint of orch") from error


def digest(path: Path, *, sha256: str) -> str:
    """Return the sha256 of these bytes."""
    whole = hashlib.sha256()
    for piece in pieces(path, sha256=sha256):
        whole.update(piece)
    return whole.hexdigest()


def _pieces(file: BufferedReader) -> Iterator[bytes]:
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > _LARGEST_HEADER:
        raise ValueError("its header is too long")
    tensors: dict[str, dict[str, Any]] = json.loads(file.read(length))
    kind = next((kind for kind in _KINDS if any(name.startswith(kind) for name in tensors)), None)
    if kind is None:
        raise ValueError("it has no network")
    named = {name.removeprefix(kind): entry for name, entry in tensors.items() if name.startswith(kind)}
    wanted = [(name, named[name]) for name in sorted(named)]
    sizes = [entry["data_offsets"][1] - entry["data_offsets"][0] for _, entry in wanted]
    ends = list(itertools.accumulate(sizes))
    header = {
        name: {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [end - size, end]}
        for (name, entry), size, end in zip(wanted, sizes, ends, strict=True)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(_LENGTH_BYTES, "little") + text
    for (_, entry), size in zip(wanted, sizes, strict=True):
        file.seek(_LENGTH_BYTES + length + entry["data_offsets"][0])
        yield from _exactly(file, size)


def _exactly(file: BufferedReader, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(_PIECE, size))
        if not piece:
            raise ValueError("it ends early")
        size -= len(piece)
        yield piece


def _unusable(path: Path, why: str) -> errors.OrchError:
    return errors.OrchError(
        f"The checkpoint {path} cannot be used.", why=f"{why[0].upper()}{why[1:]}.", hint="`orch doctor --audit`."
    )
