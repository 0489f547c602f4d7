"""The networks that a job can name, and what each costs: numbers only, the network itself is `worker.models.densenet`.

Depths and growth rates are those of Huang et al., "Densely Connected Convolutional Networks",
https://arxiv.org/abs/1608.06993, tables 1 and 2.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Stem = Literal["cifar", "imagenet"]

#: What backward keeps of each dense layer: everything, what it adds and what surrounds its second BN, what it adds.
Memory = Literal["plain", "balanced", "lean"]
MEMORIES: tuple[Memory, ...] = get_args(Memory)  #: each leaner than the one before


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that make a network. Each is a field of JobSpec, which has their defaults."""

    growth_rate: int  #: channels that each layer adds
    blocks: tuple[int, ...]  #: layers of each dense block
    reduction: float  #: share of channels that a transition keeps, rounded down: the paper's compression
    stem: Stem
    stem_channels: int | None  #: None: two growth rates
    bottleneck: int  #: growth rates between a layer's 1x1 and 3x3 convolution; 0: the layer has no 1x1 convolution
    transition_relu: bool
    dropout: float  #: share dropped behind each convolution but the first

    @property
    def first_channels(self) -> int:
        """Channels behind the stem."""
        return self.stem_channels or 2 * self.growth_rate


def leaner(mode: Memory, *, times: int) -> Memory:
    """Return the mode that is so many times leaner than this one, the leanest at most."""
    return MEMORIES[min(MEMORIES.index(mode) + times, len(MEMORIES) - 1)]


FIELDS = tuple(field.name for field in fields(Shape))

#: Networks for photographs as in table 1, in torchvision's form: its weights fit.
_IMAGENET: dict[str, Any] = {"stem": "imagenet", "transition_relu": True}
#: Networks for small pictures as in table 2: BC has bottlenecks and compression, the plain form neither.
_PLAIN: dict[str, Any] = {"stem_channels": 16, "bottleneck": 0, "reduction": 1.0}

#: Settings that a network's name stands for; each is a field of JobSpec and may be overridden there. A name never
#: comes to mean another network: jobs are known by it.
NETWORKS: dict[str, dict[str, Any]] = {
    "densenet121": {"growth_rate": 32, "blocks": (6, 12, 24, 16)},
    "densenet161": {"growth_rate": 48, "blocks": (6, 12, 36, 24)},
    "densenet169": {"growth_rate": 32, "blocks": (6, 12, 32, 32)},
    "densenet201": {"growth_rate": 32, "blocks": (6, 12, 48, 32)},
    "densenet121_imagenet": {"growth_rate": 32, "blocks": (6, 12, 24, 16), **_IMAGENET},
    "densenet161_imagenet": {"growth_rate": 48, "blocks": (6, 12, 36, 24), **_IMAGENET},
    "densenet169_imagenet": {"growth_rate": 32, "blocks": (6, 12, 32, 32), **_IMAGENET},
    "densenet201_imagenet": {"growth_rate": 32, "blocks": (6, 12, 48, 32), **_IMAGENET},
    "densenet264_imagenet": {"growth_rate": 32, "blocks": (6, 12, 64, 48), **_IMAGENET},
    "densenet_40_12": {"growth_rate": 12, "blocks": (12, 12, 12), **_PLAIN},
    "densenet_100_12": {"growth_rate": 12, "blocks": (32, 32, 32), **_PLAIN},
    "densenet_100_24": {"growth_rate": 24, "blocks": (32, 32, 32), **_PLAIN},
    "densenet_bc_40_12": {"growth_rate": 12, "blocks": (6, 6, 6)},
    "densenet_bc_40_36": {"growth_rate": 36, "blocks": (6, 6, 6)},
    "densenet_bc_40_48": {"growth_rate": 48, "blocks": (6, 6, 6)},
    "densenet_bc_100_12": {"growth_rate": 12, "blocks": (16, 16, 16)},
    "densenet_bc_190_40": {"growth_rate": 40, "blocks": (31, 31, 31)},
    "densenet_bc_250_24": {"growth_rate": 24, "blocks": (41, 41, 41)},
    "densenet_tiny": {"growth_rate": 4, "blocks": (1, 1)},
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network weighs, and what one picture costs it."""

    parameters: int
    macs: int  #: multiply-adds of convolutions and classifier, forward


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network by its name, and its cost for pictures of `image_size` pixels squared."""

    name: str
    shape: Shape
    image_size: int
    classes: int
    parameters: int
    macs: int | None  #: None: the pictures are too small for it
    smallest_image: int


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    inputs: int  #: channels
    outputs: int  #: channels
    kernel: int  #: side
    map: int  #: side of what comes out

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.kernel**2


def cost(shape: Shape, *, image_size: int, classes: int) -> Cost:
    """Return the parameters, and the multiply-adds for one picture of `image_size` pixels squared."""
    first, *others = _convolutions(shape, image_size)
    features = _features(shape)
    # Behind the stem a BatchNorm stands before every convolution and the classifier; imagenet's stem has one more.
    normed = [*(each.inputs for each in others), features, *([first.outputs] if shape.stem == "imagenet" else [])]
    weights = first.weights + sum(each.weights for each in others)
    return Cost(
        parameters=weights + 2 * sum(normed) + (features + 1) * classes,
        macs=sum(each.weights * each.map**2 for each in (first, *others)) + features * classes,
    )


def learning(shape: Shape, part: Literal["all", "last-block", "head"], *, classes: int) -> int:
    """Return the parameters of a part of the network: the classifier's are in each."""
    features = _features(shape)
    head = (features + 1) * classes
    if part == "head":
        return head
    if part == "all":
        return cost(shape, image_size=1, classes=classes).parameters
    own = list(_convolutions(shape, 1))[-shape.blocks[-1] * (2 if shape.bottleneck else 1) :]
    return sum(each.weights + 2 * each.inputs for each in own) + 2 * features + head


def model(name: str, shape: Shape, *, image_size: int | None = None, classes: int | None = None) -> Model:
    """Return what is known of a network; without size and classes, for the pictures that it was published with.

    Those are ImageNet's for four blocks and more, CIFAR-10's for fewer.
    """
    photographs = len(shape.blocks) > 3  # noqa: PLR2004 - table 2's networks have three
    size, number = image_size or (224 if photographs else 32), classes or (1000 if photographs else 10)
    cost_, least = cost(shape, image_size=size, classes=number), smallest_image(shape)
    return Model(
        name=name,
        shape=shape,
        image_size=size,
        classes=number,
        parameters=cost_.parameters,
        macs=cost_.macs if size >= least else None,
        smallest_image=least,
    )


@functools.cache  # of a few shapes, asked for each of thousands of jobs
def smallest_image(shape: Shape) -> int:
    """Return the smallest side in pixels that leaves a feature map of at least 1 x 1 after every transition."""
    size = 1
    while first_map(shape, size) >> (len(shape.blocks) - 1) < 1:  # each transition halves, rounding down
        size += 1
    return size


@functools.cache
def keeps_channels(shape: Shape) -> bool:
    """Whether every transition leaves at least one channel."""
    return all(each.outputs > 0 for each in _convolutions(shape, 1))


def _convolutions(shape: Shape, image_size: int) -> Iterator[_Convolution]:
    """Yield the network's convolutions in order."""
    growth, channels, side = shape.growth_rate, shape.first_channels, first_map(shape, image_size)
    if shape.stem == "imagenet":  # its pooling comes behind the convolution
        yield _Convolution(inputs=3, outputs=channels, kernel=7, map=halved(image_size))
    else:
        yield _Convolution(inputs=3, outputs=channels, kernel=3, map=side)
    for index, layers in enumerate(shape.blocks):
        for _ in range(layers):
            inner = shape.bottleneck * growth
            if inner:
                yield _Convolution(inputs=channels, outputs=inner, kernel=1, map=side)
            yield _Convolution(inputs=inner or channels, outputs=growth, kernel=3, map=side)
            channels += growth
        if index < len(shape.blocks) - 1:
            kept = int(channels * shape.reduction)
            yield _Convolution(inputs=channels, outputs=kept, kernel=1, map=side)
            channels, side = kept, side // 2


def _features(shape: Shape) -> int:
    """Return the channels that the classifier sees."""
    channels = shape.first_channels
    for index, layers in enumerate(shape.blocks):
        channels += layers * shape.growth_rate
        if index < len(shape.blocks) - 1:
            channels = int(channels * shape.reduction)
    return channels


def first_map(shape: Shape, image_size: int) -> int:
    """Return the side of the map that the first block sees, in pixels."""
    if shape.stem == "cifar":
        return image_size
    return halved(halved(image_size))  # 7 x 7 stride 2 padding 3, then max-pool 3 x 3 stride 2 padding 1


def halved(size: int) -> int:
    """Return the side behind a stride of two."""
    return math.ceil(size / 2)
