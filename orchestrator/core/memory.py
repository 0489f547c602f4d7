"""What a training takes in memory, and what of it is kept for backward: by the network's numbers, without building it.

A convolution keeps its input, BatchNorm its input, a ReLU its output, which is the next convolution's input; what is
put together again keeps nothing but its parts. The tests count the same on the networks themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core import networks, specs

_FLOAT = 4  #: bytes
_INDEX = 8

#: A training process before it has a network: Python, torch, and what the fork server has imported.
_PROCESS = 691 * 2**20

#: Larger batches need another learning rate more than they need memory.
LARGEST_BATCH = 128

#: Steps of an epoch that a batch leaves, however small the data set is.
FEWEST_STEPS = 8

#: What backward works in, beside what is kept: copies of the largest block's maps, and of what the layers of a block
#: concatenate, one after the other. A leaner mode makes that again and again, and what is kept lies between the holes.
_WORK: dict[networks.Memory, tuple[float, float]] = {"plain": (5.7, 0), "balanced": (10.75, 0.39), "lean": (8.9, 1.45)}

#: The same of a pass of which nothing is kept, since nothing in it learns.
_FORWARD = (7.3, 0.84)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A block, as a picture meets it."""

    side: int  #: of its maps, pixels
    channels: int  #: before it
    layers: int
    after: int  #: channels behind it


def kept(shape: networks.Shape, *, image_size: int, mode: networks.Memory) -> int:
    """Return the bytes that backward keeps of one picture in fp32, that of parameters and statistics left out."""
    blocks = list(_blocks(shape, image_size))
    side, channels, plain = blocks[0].side, shape.first_channels, mode == "plain"
    floats = 3 * image_size**2 + sum(_of_block(shape, block, mode) for block in blocks)
    if plain and shape.stem == "imagenet":  # around its ReLU, and where the maxima of the pooling were
        floats += 2 * channels * networks.halved(image_size) ** 2 + _INDEX // _FLOAT * channels * side**2
    if plain:  # of each transition, before the pooling
        floats += sum(int(block.after * shape.reduction) * block.side**2 for block in blocks[:-1])
    return _FLOAT * (floats + blocks[-1].after)


def _of_block(shape: networks.Shape, block: _Block, mode: networks.Memory) -> int:
    """Return how many numbers are kept in a block and around the BatchNorm behind it."""
    behind = 2 * block.after if mode == "plain" else 0
    return (_maps(shape, block.channels, block.layers, mode) + behind) * block.side**2


def _maps(shape: networks.Shape, channels: int, layers: int, mode: networks.Memory) -> int:
    """Return how many maps a block keeps; what stands before it is one of its own."""
    growth, inner = shape.growth_rate, shape.bottleneck * shape.growth_rate
    dropped = (inner + growth) * layers if shape.dropout else 0  # the masks
    if mode == "plain":
        before = sum(channels + layer * growth for layer in range(layers))
        return 2 * before + 2 * inner * layers + dropped
    return channels + layers * growth + (2 * inner * layers + dropped if mode == "balanced" else 0)


def peak(spec: specs.JobSpec, *, mode: networks.Memory, classes: int = 2) -> int:
    """Return the bytes that the process of a training on the CPU has at its peak, its loading processes left out.

    Of several that train together it is each one's. The process itself, what a checkpoint has of each parameter, twice,
    what is kept, and what backward works in, fitted to training processes under the fork server's allocator settings.
    """
    shape = spec.shape
    parameters = networks.cost(shape, image_size=spec.image_size, classes=classes).parameters
    learning = networks.learning(shape, spec.train, classes=classes)
    of_each = 1 + (1 if spec.ema else 0)
    of_optimizer = 2 if spec.optimizer != "sgd" else 1 if spec.momentum else 0
    # What a checkpoint has, and the copy that is being written; beside it the gradients.
    weights = 2 * of_each * parameters + (1 + 2 * of_optimizer) * learning
    pictures = -(-spec.batch_size // spec.gpus) * _picture(spec, mode)
    return _PROCESS + _FLOAT * weights + round(pictures)


def _picture(spec: specs.JobSpec, mode: networks.Memory) -> float:
    """Return the bytes that a picture takes at the peak: what of it is kept, and what is worked in."""
    shape, largest = spec.shape, largest_maps(spec.shape, image_size=spec.image_size)
    if spec.train == "all":
        return kept(shape, image_size=spec.image_size, mode=mode) + _FLOAT * _product(_WORK[mode], largest)
    forward = _product(_FORWARD, largest)
    if spec.train == "head":
        return _FLOAT * forward
    *_, last = _blocks(shape, spec.image_size)
    backward = _of_block(shape, last, mode) + _product(_WORK[mode], (last.after * last.side**2, _seen(shape, last)))
    return _FLOAT * max(forward, backward)


def _product(work: tuple[float, float], maps: tuple[int, int]) -> float:
    return work[0] * maps[0] + work[1] * maps[1]


def largest_batch(spec: specs.JobSpec, *, room: int, pictures: int | None = None) -> int | None:
    """Return the largest power of two, `LARGEST_BATCH` at most, whose training takes no more than `room` bytes.

    Where the number of training pictures is known, an epoch has `FEWEST_STEPS` at least. None where not even two
    pictures for each device fit: BatchNorm needs them.
    """
    most = specs.LARGEST_STEP if pictures is None else max(2 * spec.accumulate, pictures // FEWEST_STEPS)
    least = specs.LEAST_SHARE * spec.gpus
    powers = [2**power for power in range(1, LARGEST_BATCH.bit_length()) if 2**power * spec.accumulate <= most]
    sizes = {
        batch: peak(spec.model_copy(update={"batch_size": batch}), mode=spec.memory)
        for batch in powers
        if batch >= least
    }
    return max((batch for batch, size in sizes.items() if size <= room), default=None)


def largest_maps(shape: networks.Shape, *, image_size: int) -> tuple[int, int]:
    """Return how many numbers the largest output of a block has for one picture, and all that its layers see of it."""
    blocks = list(_blocks(shape, image_size))
    return max(block.after * block.side**2 for block in blocks), max(_seen(shape, block) for block in blocks)


def _seen(shape: networks.Shape, block: _Block) -> int:
    """Return how many numbers the layers of a block see, all together."""
    return sum(block.channels + layer * shape.growth_rate for layer in range(block.layers)) * block.side**2


def _blocks(shape: networks.Shape, image_size: int) -> Iterator[_Block]:
    side, channels = networks.first_map(shape, image_size), shape.first_channels
    for layers in shape.blocks:
        after = channels + layers * shape.growth_rate
        yield _Block(side=side, channels=channels, layers=layers, after=after)
        channels, side = int(after * shape.reduction), side // 2
