"""A DenseNet's training pass on a CPU, in as few passes over memory as there can be: torch's convolutions, and `fused`.

The maps of a block lie in one buffer, each layer's behind those before it: nothing is concatenated. The mean and the
variance of a map are the same for every layer behind it, and computed once, as it comes. In backward every layer adds
what it has of the gradient of the normalised maps to one buffer, and when the last has done so, the rest of BatchNorm's
gradient is computed once for all: Jung et al., "Restructuring Batch Normalization to Accelerate CNN Training",
https://arxiv.org/abs/1807.01702, fuses pairs of layers. All numbers are those of `densenet` but for their last bits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from worker.models import densenet, fused

#: That of every BatchNorm here.
_EPS = nn.BatchNorm2d(1).eps

#: The gradient of a token.
_NOTHING = torch.zeros(())


class Pass:
    """Maps normalised pictures (N, 3, H, W) to logits (N, num_classes), as a network in training does."""

    def __init__(self, network: densenet.DenseNet, kernels: fused.Kernels) -> None:
        self._network = network
        self._kernels = kernels

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits; BatchNorm's running statistics follow. ValueError where a channel has a single number."""
        network = self._network
        x: Any = network.conv1(images.contiguous(memory_format=torch.channels_last))
        if isinstance(network.stem, nn.Sequential):
            x = self._through(network.stem, x)
        for part in network.features[:-2]:
            x = self._block(part, x) if isinstance(part, densenet.DenseBlock) else self._through(_pooled_first(part), x)
        logits: torch.Tensor = network.linear(network.avgpool(self._through(network.features[-2:], x)).flatten(1))
        return logits

    def _block(self, block: Any, x: torch.Tensor) -> "_Maps":
        """Return the maps before a dense block and of all its layers."""
        layers = [layer.bottle_neck for layer in block]
        convolutions = [[one for one in layer if isinstance(one, nn.Conv2d)] for layer in layers]
        added = sum(last.out_channels for *_, last in convolutions)
        maps = _Maps(self._kernels, x, added=added)
        for layer in layers:
            maps.add(self._through(layer, maps))
        return maps

    def _through(self, modules: Any, x: "torch.Tensor | _Maps") -> torch.Tensor:
        """Return what modules make of `x`; the first is a norm where it is maps."""
        left: list[nn.Module] = list(modules)
        while left:
            module = left.pop(0)
            if isinstance(module, nn.BatchNorm2d):
                follows = [_taken(left, kind) for kind in (nn.ReLU, nn.AvgPool2d)]
                x = _normalised(self._kernels, x, _Layer(module, *follows))
            else:
                x = module(x)
        assert isinstance(x, torch.Tensor)  # noqa: S101 - behind its norm, said to the type checker
        return x


class _Layer(NamedTuple):
    """A BatchNorm, and what follows it."""

    norm: nn.BatchNorm2d
    relu: bool
    pool: bool  #: 2 x 2 average pooling


def _pooled_first(transition: Any) -> list[nn.Module]:
    """Return the modules of a transition, its pooling before its convolution, which then has a quarter of the pixels.

    An average of pixels and a weighted sum of channels may change places; not so with a dropout between them.
    """
    *before, convolution, pool = transition.down_sample
    return [*before, pool, convolution] if isinstance(convolution, nn.Conv2d) else [*before, convolution, pool]


def _taken(left: list[nn.Module], kind: type[nn.Module]) -> bool:
    """Take away the first of these modules where it is of a kind, and return whether it is."""
    found = bool(left) and isinstance(left[0], kind)
    del left[: int(found)]
    return found


class _Buffer:
    """The maps of a block, their moments, and what backward gathers of them. No token: it holds what holds this."""

    def __init__(self, kernels: fused.Kernels, first: torch.Tensor, channels: int) -> None:
        images, _, *self.sides = first.shape
        self.kernels = kernels
        self.rows = first.new_empty(images * self.sides[0] * self.sides[1], channels)
        self.mean, self.variance = first.new_empty(2, channels, dtype=torch.float32)
        #: Of the gradient g of the normalised maps: g itself, and its sums as `fused.Kernels.gather` returns them.
        self.total: torch.Tensor | None = None
        self.sums = first.new_zeros(2, channels, dtype=torch.float32)

    def free(self) -> None:
        """Give the memory back."""
        self.total, self.rows = None, self.rows.new_empty(0)


class _Maps:
    """The maps that stand before a layer, and room for those of the layers behind it.

    They are no input of what reads them: a token is, which each addition takes and gives. So backward comes to an
    addition when all who read what it added have been there, and has their gradients in `total`.
    """

    def __init__(self, kernels: fused.Kernels, first: torch.Tensor, *, added: int) -> None:
        self.buffer = _Buffer(kernels, first, first.shape[1] + added)
        self._used = 0
        self.token = torch.zeros((), requires_grad=True)
        self.add(first)

    def add(self, made: torch.Tensor) -> None:
        """Put maps (N, channels, H, W) behind the others."""
        self.token = _Add.apply(self.buffer, made, self.token, self._used)
        self._used += made.shape[1]


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: _Buffer, made: torch.Tensor, token: torch.Tensor, at: int) -> torch.Tensor:
        part = slice(at, at + made.shape[1])
        maps.mean[part], maps.variance[part] = maps.kernels.moments(_rows(made), copy=maps.rows[:, part])
        context.maps, context.part = maps, part
        return token.clone()

    @staticmethod
    @once_differentiable
    def backward(context: Any, token: torch.Tensor) -> tuple[Any, ...]:
        maps, part = context.maps, context.part
        mean, inverse = maps.mean[part], torch.rsqrt(maps.variance[part] + _EPS)
        norm = fused.Norm(mean=mean, inverse=inverse, scale=inverse, shift=inverse, relu=False)
        gradient = maps.kernels.finish(
            maps.total[:, part], maps.rows[:, part], norm, by=inverse, sums=maps.sums[:, part]
        )
        if part.start == 0:  # the last to come
            maps.free()
        return None, _pictures(gradient, maps.sides), token, None


class _NormaliseMaps(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, _token: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, how: tuple[_Buffer, _Layer]
    ) -> torch.Tensor:
        maps, layer = how
        channels = len(weight)
        moments = maps.mean[:channels], maps.variance[:channels]
        norm = _norm(layer, weight, bias, moments, pixels=len(maps.rows), sides=maps.sides)
        context.maps, context.norm, context.weight = maps, norm, weight
        made = maps.kernels.normalise(maps.rows[:, :channels], norm)
        return _pictures(made, [side // 2 for side in maps.sides] if layer.pool else maps.sides)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        maps, norm, weight = context.maps, context.norm, context.weight
        fresh = maps.total is None  # who has read all maps comes first
        if fresh:
            maps.total = maps.rows.new_empty(maps.rows.shape, dtype=torch.float32)
        total, rows = maps.total[:, : len(weight)], maps.rows[:, : len(weight)]
        sums = maps.kernels.gather(_rows(gradient), rows, norm, total=total, weight=weight, fresh=fresh)
        maps.sums[:, : len(weight)].addcmul_(weight, sums)
        return _NOTHING, sums[1] * norm.inverse, sums[0], None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, how: tuple[fused.Kernels, _Layer]
    ) -> torch.Tensor:
        kernels, layer = how
        rows = _rows(x)
        norm = _norm(layer, weight, bias, kernels.moments(rows), pixels=len(rows), sides=x.shape[2:])
        context.save_for_backward(rows)
        context.kernels, context.norm, context.sides = kernels, norm, x.shape[2:]
        return _pictures(kernels.normalise(rows, norm), x.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (rows,), kernels, norm = context.saved_tensors, context.kernels, context.norm
        behind = _rows(gradient)
        sums = kernels.gather(behind, rows, norm)
        before = kernels.finish(behind, rows, norm, by=norm.scale, sums=sums)
        return _pictures(before, context.sides), sums[1] * norm.inverse, sums[0], None


def _normalised(kernels: fused.Kernels, x: torch.Tensor | _Maps, layer: _Layer) -> torch.Tensor:
    """Return what a layer makes of `x`, of all maps that stand there by now."""
    weight, bias = layer.norm.weight, layer.norm.bias
    made: torch.Tensor = (
        _NormaliseMaps.apply(x.token, weight, bias, (x.buffer, layer))
        if isinstance(x, _Maps)
        else _Normalise.apply(x, weight, bias, (kernels, layer))
    )
    return made


def _norm(
    layer: _Layer,
    weight: torch.Tensor,
    bias: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    *,
    pixels: int,
    sides: Sequence[int],
) -> fused.Norm:
    """Return what a layer does to maps of these moments, which its running statistics follow: the variance unbiased."""
    if pixels == 1:
        raise ValueError("BatchNorm needs more than one number of each channel")
    norm, (mean, variance) = layer.norm, moments
    assert norm.running_mean is not None  # noqa: S101 - of every layer here, said to the type checker
    assert norm.running_var is not None  # noqa: S101 - the same
    assert norm.num_batches_tracked is not None  # noqa: S101 - the same
    assert norm.momentum is not None  # noqa: S101 - the same
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
    inverse = torch.rsqrt(variance + _EPS)
    scale = weight * inverse
    height, width = sides if layer.pool else (0, 0)
    shift = bias - mean * scale
    return fused.Norm(mean=mean, inverse=inverse, scale=scale, shift=shift, relu=layer.relu, pooled=(height, width))


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (N, channels, H, W) as rows (pixels, channels): the same memory where they are channels_last."""
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _pictures(rows: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """Return rows as maps again, in channels_last."""
    return rows.view(-1, *sides, rows.shape[1]).permute(0, 3, 1, 2)
