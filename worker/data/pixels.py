"""Decoded pictures: the pixels that Pillow gives, to the bit, by the fastest decoder at hand."""

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from orchestrator import failpoints
from worker.data import imagefolder

#: A picture: uint8 of shape (height, width, 3), RGB.
Pixels = npt.NDArray[np.uint8]

_JPEG = b"\xff\xd8"
#: Colour spaces that both decoders turn into RGB by the same arithmetic; the others are Pillow's.
_SHARED = frozenset({"YCbCr", "Gray"})


def read(path: Path) -> Pixels:
    """Return the picture in a file.

    Raises:
        OSError: it cannot be read; whatever Pillow raises, where it cannot be decoded.

    """
    failpoints.reach("picture.open")
    return decoded(path.read_bytes())


def decoded(content: bytes) -> Pixels:
    """Return the picture in the bytes of a file; raises as `read` does."""
    if content.startswith(_JPEG) and _agree():
        with contextlib.suppress(ValueError):  # damaged, or too large: Pillow knows what to say
            height, width, space, _ = simplejpeg.decode_jpeg_header(content)
            if space in _SHARED and height * width <= imagefolder.MAX_PIXELS:
                return _by_turbo(content)
    return _by_pillow(content)


def _by_turbo(content: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)
    return pixels


def _by_pillow(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content), formats=imagefolder.FORMATS) as file:
        return np.array(file.convert("RGB"))


@functools.cache
def _agree() -> bool:
    """Whether both decoders are of one kind here: a Pillow may be built with a JPEG library of other arithmetic."""
    noise = np.random.default_rng(0).integers(0, 256, size=(37, 51, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=80, subsampling="4:2:0")
    content = buffer.getvalue()
    return np.array_equal(_by_turbo(content), _by_pillow(content))
