"""What a training takes in memory, and what of it is kept for backward: by the network's numbers, without building it.

A convolution keeps its input, BatchNorm its input, a ReLU its output, which is the next convolution's input; what is
put together again keeps nothing but its parts. In mixed precision autocast halves the first convolution's input, and so
all that follows from it (https://docs.pytorch.org/docs/stable/amp.html has the operations); weights stay as they are,
and each that learns has a copy in halves for a step. The compiled pass of a CPU (`worker.models.shared`) keeps the maps
of a block once, what each norm makes of them, and a transition's behind its pooling. The tests count the same on the
networks themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core import networks, specfields, specs

_FLOAT, _HALF = 4, 2  #: bytes
_INDEX = 8

#: Bytes of a number in the forward pass. `auto` counts as fp32, the most that it takes: it takes bf16 where the device
#: has instructions for it, and which device that will be, nobody knows yet.
_SIZES: dict[specfields.Precision, int] = {"fp32": _FLOAT, "auto": _FLOAT, "bf16": _HALF, "fp16": _HALF}

#: A training process before it has a network: Python, torch, and what the fork server has imported.
_PROCESS = 455 * 2**20

#: Larger batches need another learning rate more than they need memory.
LARGEST_BATCH = 128

#: Steps of an epoch that a batch leaves, however small the data set is.
FEWEST_STEPS = 8

#: What backward works in, beside what is kept: copies of the largest block's maps, and of what the layers of a block
#: concatenate, one after the other. A leaner mode makes that again and again, and what is kept lies between the holes.
_WORK: dict[networks.Memory, tuple[float, float]] = {"plain": (4, 0), "balanced": (10.75, 0.39), "lean": (8.9, 1.45)}

#: In halves it also has what the largest 3 x 3 convolution sees, unfolded, so many times: so a CPU without instructions
#: for them computes it, and no other was measured.
_UNFOLDED = 5

#: Bytes that the compiled pass works in for each number of the largest block's maps, in any precision.
_COMPILED = 5.5 * _FLOAT

#: The same of a forward pass of which nothing is kept: of the frozen part, and of all of it once, for features.
_FROZEN, _FEATURES = (4, 0.45), (7.3, 0.84)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A block, as a picture meets it."""

    side: int  #: of its maps, pixels
    channels: int  #: before it
    layers: int
    after: int  #: channels behind it


def kept(
    shape: networks.Shape,
    *,
    image_size: int,
    mode: networks.Memory,
    precision: specfields.Precision = "fp32",
    compiled: bool = False,
) -> int:
    """Return the bytes that backward keeps of one picture, that of parameters and statistics left out.

    `compiled`: by the pass of orch's own, which keeps all that it needs (`mode` plain).
    """
    blocks = list(_blocks(shape, image_size))
    side, channels, plain, size = blocks[0].side, shape.first_channels, mode == "plain", _SIZES[precision]
    if compiled:
        numbers = sum(_of_compiled_block(shape, block) for block in blocks)
    else:
        numbers = sum(_of_block(shape, block, mode) for block in blocks)
    indices = 0
    if plain and shape.stem == "imagenet":  # around its ReLU, and where the maxima of the pooling were
        numbers += 2 * channels * networks.halved(image_size) ** 2
        indices = channels * side**2
    if plain:
        numbers += sum(_of_transition(shape, block, compiled=compiled) for block in blocks[:-1])
    # A stem that is computed again begins with the pictures themselves, not with what autocast makes of them.
    picture = _FLOAT if shape.stem == "imagenet" and not plain else size
    return picture * 3 * image_size**2 + size * (numbers + blocks[-1].after) + _INDEX * indices


def _of_block(shape: networks.Shape, block: _Block, mode: networks.Memory) -> int:
    """Return how many numbers are kept in a block and around the BatchNorm behind it."""
    behind = 2 * block.after if mode == "plain" else 0
    return (_maps(shape, block.channels, block.layers, mode) + behind) * block.side**2


def _of_compiled_block(shape: networks.Shape, block: _Block) -> int:
    """Return the same of the compiled pass: the maps, once, in place of what each layer concatenates of them."""
    return (_maps(shape, block.channels, block.layers, "plain") + block.after) * block.side**2 - _seen(shape, block)


def _of_transition(shape: networks.Shape, block: _Block, *, compiled: bool) -> int:
    """Return how many numbers are kept between a block's last BatchNorm and the next block, where all are."""
    normalised = block.after if compiled else 0  # else they are counted with the block
    if compiled and not shape.dropout:  # pooled before the convolution
        return normalised * (block.side // 2) ** 2
    dropped = 2 if shape.dropout else 1  # the mask, too
    return (normalised + dropped * int(block.after * shape.reduction)) * block.side**2


def _maps(shape: networks.Shape, channels: int, layers: int, mode: networks.Memory) -> int:
    """Return how many maps a block keeps; what stands before it is one of its own."""
    growth, inner = shape.growth_rate, shape.bottleneck * shape.growth_rate
    inside = 2 * inner * layers
    if shape.dropout:  # its masks; the first one is computed again with what stands before the second BatchNorm
        inside += (growth + (inner if mode == "plain" else 0)) * layers
    if mode == "plain":
        return 2 * sum(channels + layer * growth for layer in range(layers)) + inside
    # Without a second BatchNorm all of a layer is computed again, its mask as well.
    return channels + layers * growth + (inside if mode == "balanced" and inner else 0)


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
    halves = _HALF * learning if _SIZES[spec.precision] == _HALF else 0
    pictures = -(-spec.batch_size // spec.gpus) * _picture(spec, mode)
    return _PROCESS + _FLOAT * weights + halves + round(pictures)


def _picture(spec: specs.JobSpec, mode: networks.Memory) -> float:
    """Return the bytes that a picture takes at the peak: what of it is kept, and what is worked in."""
    shape, size = spec.shape, _SIZES[spec.precision]
    blocks = list(_blocks(shape, spec.image_size))
    if spec.train == "head":  # which sees features, in fp32
        return _FLOAT * _product(_FEATURES, _largest(shape, blocks))
    if spec.train == "all":
        compiled = spec.compile and mode == "plain"
        whole = kept(shape, image_size=spec.image_size, mode=mode, precision=spec.precision, compiled=compiled)
        if compiled:
            return whole + _COMPILED * _largest(shape, blocks)[0]
        return whole + size * _worked(shape, blocks, mode, size)
    last = blocks[-1:]
    backward = size * (_of_block(shape, last[0], mode) + _worked(shape, last, mode, size))
    return max(backward, _FLOAT * _product(_FROZEN, _largest(shape, blocks)))  # validation is in fp32


def _worked(shape: networks.Shape, blocks: Sequence[_Block], mode: networks.Memory, size: int) -> float:
    """Return how many numbers of a size backward works in, beside what is kept of these blocks."""
    unfolded = _UNFOLDED * max(_unfolded(shape, block) for block in blocks) if size == _HALF else 0
    # Without a bottleneck balanced computes whole layers again, as lean does.
    known: networks.Memory = mode if shape.bottleneck or mode == "plain" else "lean"
    return _product(_WORK[known], _largest(shape, blocks)) + unfolded


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


def _largest(shape: networks.Shape, blocks: Sequence[_Block]) -> tuple[int, int]:
    """Return how many numbers the largest output of a block has for one picture, and all that its layers see of it."""
    return max(block.after * block.side**2 for block in blocks), max(_seen(shape, block) for block in blocks)


def _seen(shape: networks.Shape, block: _Block) -> int:
    """Return how many numbers the layers of a block see, all together."""
    return sum(block.channels + layer * shape.growth_rate for layer in range(block.layers)) * block.side**2


def _unfolded(shape: networks.Shape, block: _Block) -> int:
    """Return how many numbers the last 3 x 3 convolution of a block sees, each counted as often as it sees it."""
    channels = shape.bottleneck * shape.growth_rate or block.after - shape.growth_rate
    return 3 * 3 * channels * block.side**2


def _blocks(shape: networks.Shape, image_size: int) -> Iterator[_Block]:
    side, channels = networks.first_map(shape, image_size), shape.first_channels
    for layers in shape.blocks:
        after = channels + layers * shape.growth_rate
        yield _Block(side=side, channels=channels, layers=layers, after=after)
        channels, side = int(after * shape.reduction), side // 2
