"""The networks that a job can name: their numbers only, the network itself is `worker.models.densenet`.

Depths and growth rates are those of Huang et al., "Densely Connected Convolutional Networks",
https://arxiv.org/abs/1608.06993, tables 1 and 2.
"""

from typing import Literal

Stem = Literal["cifar", "imagenet"]

#: Settings that a network's name stands for; each is a field of JobSpec and may be overridden there.
NETWORKS: dict[str, dict[str, object]] = {
    "densenet121": {"growth_rate": 32, "blocks": (6, 12, 24, 16)},
    "densenet161": {"growth_rate": 48, "blocks": (6, 12, 36, 24)},
    "densenet169": {"growth_rate": 32, "blocks": (6, 12, 32, 32)},
    "densenet201": {"growth_rate": 32, "blocks": (6, 12, 48, 32)},
    "densenet_bc_100_12": {"growth_rate": 12, "blocks": (16, 16, 16)},
    "densenet_bc_40_12": {"growth_rate": 12, "blocks": (6, 6, 6)},
    "densenet_tiny": {"growth_rate": 4, "blocks": (1, 1)},
}


def smallest_image(*, blocks: tuple[int, ...], stem: Stem) -> int:
    """Return the smallest side in pixels that leaves a feature map of at least 1 x 1 after every transition."""
    size = 1
    while _last_map(size, transitions=len(blocks) - 1, stem=stem) < 1:
        size += 1
    return size


def keeps_channels(*, blocks: tuple[int, ...], growth_rate: int, reduction: float) -> bool:
    """Whether every transition leaves at least one channel; the stem makes two growth rates of them."""
    channels = 2 * growth_rate
    for layers in blocks[:-1]:
        channels = int((channels + layers * growth_rate) * reduction)
        if channels == 0:
            return False
    return True


def _last_map(size: int, *, transitions: int, stem: Stem) -> int:
    if stem == "imagenet":  # 7 x 7 stride 2 padding 3, then max-pool 3 x 3 stride 2 padding 1: each rounds up
        size = (size + 1) // 2
        size = (size + 1) // 2
    return size >> transitions  # each transition halves, rounding down
