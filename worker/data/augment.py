"""From pixels to what a network sees: crop, mirror, RandAugment, normalise.

The pipelines differ in how pictures are resized. `compat` does it by Pillow, as the reference notebook does, to the
same bits; `fast` by torch on the pixels themselves, which takes about half the time and differs by one of 255 levels
at most. What is random is the same in both: it depends on seed, epoch and index alone.
"""

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from orchestrator.core import specs
from worker.data.decoded import Picture
from worker.data.pixels import Pixels

#: A picture ready to be put into a batch: uint8 of shape (3, side, side).
Planes = npt.NDArray[np.uint8]

#: What the functions of torchvision work on: Pillow's picture, or a tensor of shape (3, height, width).
_Image = Image.Image | Tensor

#: Least and largest width of a random crop through its height, and how often one is drawn until it fits.
_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10

#: Processors for which torch resizes bytes as they are. For others torchvision makes numbers of them, and rounds.
_RESIZING_BYTES = ("AVX2", "AVX512")


class Augmentation:
    """What a spec does to its pictures."""

    def __init__(self, spec: specs.JobSpec) -> None:
        self._spec = spec
        self._view = _as_tensor if spec.pipeline == "fast" else Image.fromarray
        self._by_kernel = spec.pipeline == "fast" and torch.backends.cpu.get_cpu_capability() in _RESIZING_BYTES
        self._randaugment = v2.RandAugment(spec.randaugment, spec.randaugment_magnitude) if spec.randaugment else None
        self._mean, self._std = (np.array(value, dtype=np.float32)[:, None, None] for value in (spec.mean, spec.std))

    def training(self, picture: Picture, *, epoch: int, index: int) -> Planes:
        """Return a picture of the train split as `epoch` sees it: cropped, mirrored and augmented at random."""
        generator = torch.Generator().manual_seed(mixed(self._spec.seed, epoch, index))
        size = self._spec.train_size(epoch)
        image = self._padded_crop(picture, size, generator) if self._spec.crop_padding else None
        if image is None:
            top, left, height, width = random_box(generator, *picture.shape[:2], scale=self._spec.crop_scale)
            image = self._square(picture[top : top + height, left : left + width], size)
        mirrored = self._spec.flip and float(torch.rand(1, generator=generator)) < 0.5  # noqa: PLR2004 - a coin
        if not self._randaugment:
            return _mirrored(_planes(image)) if mirrored else _planes(image)
        with _drawing_from(generator):
            return _planes(self._randaugment(functional.horizontal_flip(image) if mirrored else image))

    def validation(self, picture: Picture) -> Planes:
        """Return a picture as validation and prediction see it: resized, and cropped in the centre."""
        image = _resized(self._view(picture[:, :]), [self._spec.resize])
        return _planes(functional.center_crop(image, [self._spec.image_size]))

    def normalised(self, pictures: Sequence[Planes], *, into: npt.NDArray[np.float32] | None = None) -> Tensor:
        """Return pictures of one side as float32 (N, 3, side, side): through 255, less the mean, by the deviation.

        By NumPy: it takes no second thread, and its arithmetic is that of torchvision's transforms, to the bit. One
        picture after the other, each of which stays in the processor's cache. With `into` it is the beginning of that.
        """
        shape = (len(pictures), *pictures[0].shape)
        batch = np.empty(shape, dtype=np.float32) if into is None else into[: math.prod(shape)].reshape(shape)
        for number, picture in enumerate(pictures):
            values = batch[number]
            # Plane by plane first: what was resized lies as Pillow has it, and its bytes are fewer than the numbers.
            np.divide(np.ascontiguousarray(picture), np.float32(255), out=values)
            values -= self._mean
            values /= self._std
        return torch.from_numpy(batch)

    def _square(self, crop: Pixels, size: int) -> _Image:
        """Return a crop at `size` by `size`."""
        return _by_kernel(crop, size) if self._by_kernel else _resized(self._view(crop), [size, size])

    def _padded_crop(self, picture: Picture, size: int, generator: torch.Generator) -> _Image:
        # What is padded becomes 0 when it is normalised, as where CIFAR's pictures are padded after that.
        mean = [round(255 * value) for value in self._spec.mean]
        image = functional.pad(_resized(self._view(picture[:, :]), [size]), [self._spec.crop_padding], fill=mean)
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
    low, high = _logarithms()
    for _ in range(_TRIES):
        area = height * width * torch.empty(1).uniform_(*scale, generator=generator).item()
        ratio = torch.empty(1).uniform_(low, high, generator=generator).exp_().item()
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


@functools.cache
def _logarithms() -> tuple[float, float]:
    # By torch, as torchvision does it: the last bit counts. Not at the import, which must not start torch's threads.
    low, high = torch.log(torch.tensor(_RATIOS)).tolist()
    return low, high


def _offset(generator: torch.Generator, room: int) -> int:
    # What torch.randint does, in half the time.
    return int(torch.empty(1, dtype=torch.int64).random_(0, room + 1, generator=generator).item())


def _resized(image: _Image, size: list[int]) -> _Image:
    resized: _Image = functional.resize(image, size, antialias=True)
    return resized


def _by_kernel(crop: Pixels, size: int) -> Tensor:
    """Return what `_resized` would, in a few microseconds where torchvision takes sixty to come to the same call."""
    height, width, channels = crop.shape
    pixels = torch.from_numpy(np.ascontiguousarray(crop))
    # As a batch of one whose strides leave no doubt of how it lies: else torch would put the planes one by one.
    batch = pixels.as_strided((1, channels, height, width), (crop.size, 1, width * channels, channels))
    return interpolate(batch, (size, size), mode="bilinear", antialias=True)[0]


def _as_tensor(pixels: Pixels) -> Tensor:
    # NumPy copies a crop's rows in a fifth of the time in which torch would do it.
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _planes(image: _Image) -> Planes:
    if isinstance(image, Tensor):
        return image.numpy()
    # Pillow puts a plane together as fast as NumPy could only copy it out of the whole picture.
    planes = bytearray().join(image.tobytes("raw", band) for band in "RGB")
    return np.frombuffer(planes, np.uint8).reshape(3, image.height, image.width)


def _mirrored(planes: Planes) -> Planes:
    # Planes that lie one behind the other are mirrored by torch in a sixth of the time that NumPy needs for a copy;
    # the others have to be copied anyway. Where torch has more threads, it would start them for each thread that loads.
    alone = planes.flags.c_contiguous and torch.get_num_threads() == 1
    return torch.from_numpy(planes).flip(2).numpy() if alone else planes[..., ::-1]
