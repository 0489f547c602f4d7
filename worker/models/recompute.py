"""Layers whose insides backward computes again instead of keeping them: the same numbers for less memory.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174; for DenseNets Pleiss et
al., "Memory-Efficient Implementation of DenseNets", https://arxiv.org/abs/1707.06990. A plain checkpoint around a
BatchNorm takes each batch into its running statistics twice, as torchvision's and timm's do; here the second pass
leaves them alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
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
    true = [
        (norm, name, value)
        for norm in layers
        if isinstance(norm, nn.BatchNorm2d)
        for name, value in norm.named_buffers(recurse=False)
    ]
    for norm, name, value in true:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in true:
            setattr(norm, name, value)
