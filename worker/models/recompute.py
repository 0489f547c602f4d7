"""Layers whose insides backward computes again instead of keeping them: the same numbers for less memory.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174; for DenseNets Pleiss et
al., "Memory-Efficient Implementation of DenseNets", https://arxiv.org/abs/1707.06990. A plain checkpoint around a
BatchNorm takes each batch into its running statistics twice, as torchvision's and timm's do; here the second pass
leaves them alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils import checkpoint


def of_maps(layers: nn.Sequential, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return `layers` of the maps put together; backward has the maps alone, and does the rest again as far as it must.

    Maps are (N, channels, H, W), their channels add up.
    """

    def together(*parts: torch.Tensor) -> torch.Tensor:
        of_them: torch.Tensor = layers(torch.cat(parts, dim=1))
        return of_them

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(layers)

    made: torch.Tensor = checkpoint.checkpoint(
        together,
        *maps,
        use_reentrant=False,
        context_fn=contexts,
        preserve_rng_state=any(isinstance(layer, nn.Dropout) for layer in layers),
    )
    return made


@contextmanager
def _statistics_kept(layers: nn.Sequential) -> Iterator[None]:
    """Let BatchNorms write their running statistics and counters into copies, and put the true ones back."""
    true = [(layer, name, value) for layer in layers for name, value in layer.named_buffers(recurse=False)]
    for layer, name, value in true:
        setattr(layer, name, value.clone())
    try:
        yield
    finally:
        for layer, name, value in true:
            setattr(layer, name, value)


def halved(maps: torch.Tensor) -> torch.Tensor:
    """Return the 2 x 2 average pooling of maps; backward keeps their size alone, where PyTorch's keeps the maps."""
    made: torch.Tensor = _Halved.apply(maps)
    return made


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: torch.Tensor) -> torch.Tensor:
        context.sides = maps.shape[2:]
        return functional.avg_pool2d(maps, kernel_size=2, stride=2)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Share each gradient out to its four pixels; a last row or column that is odd has none."""
        shared = functional.interpolate(gradient * 0.25, scale_factor=2, mode="nearest")
        height, width = context.sides
        return functional.pad(shared, (0, width - shared.shape[3], 0, height - shared.shape[2]))
