"""From pixels to what a network sees: crop, mirror, RandAugment, normalise.

The pipelines differ in how pictures are resized. `compat` does it by Pillow, as the reference notebook does, to the
same bits; `fast` by torch on the pixels themselves, which takes about half the time and differs by one of 255 levels
at most. What is random is the same in both: it depends on seed, epoch and index alone.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from orchestrator.core import specs
from worker.data.pixels import Pixels

#: A picture ready to be put into a batch: uint8 of shape (3, side, side).
Planes = npt.NDArray[np.uint8]

#: What the functions of torchvision work on: Pillow's picture, or a tensor of shape (3, height, width).
_Image = Image.Image | Tensor

#: Least and largest width of a random crop through its height, and how often one is drawn until it fits.
_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


class Augmentation:
    """What a spec does to its pictures."""

    def __init__(self, spec: specs.JobSpec) -> None:
        self._spec = spec
        self._view = _as_tensor if spec.pipeline == "fast" else Image.fromarray
        self._randaugment = v2.RandAugment(spec.randaugment, spec.randaugment_magnitude) if spec.randaugment else None
        self._mean, self._std = (np.array(value, dtype=np.float32)[:, None, None] for value in (spec.mean, spec.std))

    def training(self, pixels: Pixels, *, epoch: int, index: int) -> Planes:
        """Return a picture of the train split as `epoch` sees it: cropped, mirrored and augmented at random."""
        generator = torch.Generator().manual_seed(mixed(self._spec.seed, epoch, index))
        size = self._spec.train_size(epoch)
        image = self._padded_crop(pixels, size, generator) if self._spec.crop_padding else None
        if image is None:
            top, left, height, width = random_box(generator, *pixels.shape[:2], scale=self._spec.crop_scale)
            image = _resized(self._view(pixels[top : top + height, left : left + width]), [size, size])
        if self._spec.flip and float(torch.rand(1, generator=generator)) < 0.5:  # noqa: PLR2004 - a coin
            image = functional.horizontal_flip(image)
        if self._randaugment:
            with _drawing_from(generator):
                image = self._randaugment(image)
        return _planes(image)

    def validation(self, pixels: Pixels) -> Planes:
        """Return a picture as validation and prediction see it: resized, and cropped in the centre."""
        image = _resized(self._view(pixels), [self._spec.resize])
        return _planes(functional.center_crop(image, [self._spec.image_size]))

    def normalised(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        """Return pictures (…, 3, side, side) as float32: each channel through 255, without its mean, by its deviation.

        By NumPy: it takes no second thread, and its arithmetic is that of torchvision's transforms, to the bit.
        """
        values = pictures.astype(np.float32, order="C")  # whatever Pillow left: layouts have other last bits
        values /= np.float32(255)
        values -= self._mean
        values /= self._std
        return torch.from_numpy(values)

    def _padded_crop(self, pixels: Pixels, size: int, generator: torch.Generator) -> _Image:
        # What is padded becomes 0 when it is normalised, as where CIFAR's pictures are padded after that.
        mean = [round(255 * value) for value in self._spec.mean]
        image = functional.pad(_resized(self._view(pixels), [size]), [self._spec.crop_padding], fill=mean)
        height, width = functional.get_size(image)
        top, left = (_offset(generator, side - size) for side in (height, width))
        cropped: _Image = functional.crop(image, top, left, size, size)
        return cropped


def random_box(
    generator: torch.Generator, height: int, width: int, *, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw a crop of a picture: top, left, height, width. Its share of the picture is uniform in `scale`.

    Szegedy et al., https://arxiv.org/abs/1409.4842, section 6: the logarithm of width through height is uniform as
    well. The numbers are drawn in the order of torchvision's RandomResizedCrop, so that the crops of a seed are its.
    """
    low, high = (float(bound) for bound in torch.log(torch.tensor(_RATIOS)))
    for _ in range(_TRIES):
        area = height * width * float(torch.empty(1).uniform_(*scale, generator=generator))
        ratio = float(torch.exp(torch.empty(1).uniform_(low, high, generator=generator)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return _offset(generator, height - tall), _offset(generator, width - wide), tall, wide
    least, largest = _RATIOS
    wide, tall = min(width, round(height * largest)), min(height, round(width / least))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@contextmanager
def seeded(*of: int | str) -> Iterator[None]:
    """Let torch's global CPU generator, from which torchvision draws, start anew from these, and put it back after."""
    with _drawing_from(torch.Generator().manual_seed(mixed(*of))):
        yield


def mixed(*numbers: int | str) -> int:
    """Return 63 well-mixed bits: neighbouring seeds, epochs and indices give unrelated streams."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    # Not torch.manual_seed: that would seed the GPUs too, which the fork does not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator.get_state())
        yield


def _offset(generator: torch.Generator, room: int) -> int:
    return int(torch.randint(0, room + 1, (1,), generator=generator))


def _resized(image: _Image, size: list[int]) -> _Image:
    resized: _Image = functional.resize(image, size, antialias=True)
    return resized


def _as_tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _planes(image: _Image) -> Planes:
    return image.numpy() if isinstance(image, Tensor) else np.asarray(image).transpose(2, 0, 1)
