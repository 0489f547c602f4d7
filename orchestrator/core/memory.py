"""What a training takes in memory, and what of it is kept for backward: by the network's numbers, without building it.

A convolution keeps its input, BatchNorm its input, a ReLU its output, which is the next convolution's input; what is
put together again keeps nothing but its parts. The tests count the same on the networks themselves.
"""

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


def kept(shape: networks.Shape, *, image_size: int, mode: networks.Memory) -> int:
    """Return the bytes that backward keeps of one picture in fp32, that of parameters and statistics left out."""
    side, channels = networks.first_map(shape, image_size), shape.first_channels
    floats, plain = 3 * image_size**2, mode == "plain"
    if plain and shape.stem == "imagenet":  # around its ReLU, and where the maxima of the pooling were
        floats += 2 * channels * networks.halved(image_size) ** 2 + _INDEX // _FLOAT * channels * side**2
    for number, layers in enumerate(shape.blocks):
        floats += _block(shape, channels, layers, mode) * side**2
        channels += layers * shape.growth_rate
        if plain:  # around the BatchNorm behind the block
            floats += 2 * channels * side**2
        if number < len(shape.blocks) - 1:
            channels = int(channels * shape.reduction)
            if plain:  # before the pooling
                floats += channels * side**2
            side //= 2
    return _FLOAT * (floats + channels)


def _block(shape: networks.Shape, channels: int, layers: int, mode: networks.Memory) -> int:
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
    kept_of_each = 1 + (2 if spec.optimizer != "sgd" else 1 if spec.momentum else 0) + (1 if spec.ema else 0)
    per_parameter = 1 + 2 * kept_of_each  # its gradient; what a checkpoint has, and the copy that is being written
    largest, together = largest_maps(shape, image_size=spec.image_size)
    copies, concatenated = _WORK[mode]
    work = _FLOAT * (copies * largest + concatenated * together)
    pictures = -(-spec.batch_size // spec.gpus) * (kept(shape, image_size=spec.image_size, mode=mode) + work)
    return _PROCESS + _FLOAT * per_parameter * parameters + round(pictures)


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
    side, channels, largest, together = networks.first_map(shape, image_size), shape.first_channels, 0, 0
    for layers in shape.blocks:
        seen = sum(channels + layer * shape.growth_rate for layer in range(layers))
        channels += layers * shape.growth_rate
        largest, together = max(largest, channels * side**2), max(together, seen * side**2)
        channels, side = int(channels * shape.reduction), side // 2
    return largest, together
