"""A DenseNet's training pass on a CPU, in as few passes over memory as there can be: torch's convolutions, and `fused`.

The maps of a block lie in one buffer, each layer's behind those before it: nothing is concatenated. The mean and the
variance of a map are the same for every layer behind it, and computed once, as it comes. In backward every layer adds
what it has of the gradient of the normalised maps to one buffer, and when the last has done so, the rest of BatchNorm's
gradient is computed once for all: Jung et al., "Restructuring Batch Normalization to Accelerate CNN Training",
https://arxiv.org/abs/1807.01702, fuses pairs of layers. All numbers are those of `densenet` but for their last bits.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from worker.models import densenet, fused


class Pass:
    """Maps normalised pictures (N, 3, H, W) to logits (N, num_classes), as a network in training does."""

    def __init__(self, network: densenet.DenseNet, kernels: fused.Kernels) -> None:
        *parts, norm, relu = network.features
        stem = network.stem if isinstance(network.stem, nn.Sequential) else ()
        self._kernels = kernels
        self._first = [network.conv1, *_fused(stem)]
        #: A block's layers, or what a transition does.
        self._parts = [
            _layers(part) if isinstance(part, densenet.DenseBlock) else _pooled_first(part) for part in parts
        ]
        self._last = [*_fused([norm, relu]), network.avgpool, nn.Flatten(1), network.linear]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits; BatchNorm's running statistics follow. ValueError where a channel has a single number."""
        x: torch.Tensor | _Maps = self._through(self._first, images.contiguous(memory_format=torch.channels_last))
        for part in self._parts:
            x = self._block(part, x) if isinstance(part, _Block) else self._through(part, x)
        return self._through(self._last, x)

    def _block(self, block: "_Block", x: Any) -> "_Maps":
        """Return the maps before a dense block and of all its layers."""
        maps = _Maps(self._kernels, _channels_last(x), added=block.added)
        for layer in block.layers:
            maps.add(self._through(layer, maps))
        return maps

    def _through(self, steps: "Iterable[_Step]", x: Any) -> torch.Tensor:
        """Return what steps make of `x`; the first is a norm where it is maps."""
        for step in steps:
            if not isinstance(step, _Layer):
                x = step(x)
            elif isinstance(x, _Maps):
                x = _NormaliseMaps.apply(x.token, step.norm.weight, step.norm.bias, (x.buffer, step))
            else:
                how = self._kernels, step
                x = _Normalise.apply(_channels_last(x), step.norm.weight, step.norm.bias, how)
        made: torch.Tensor = x
        return made


class _Layer(NamedTuple):
    """A BatchNorm, and what follows it."""

    norm: nn.BatchNorm2d
    relu: bool
    pool: bool  #: 2 x 2 average pooling


_Step = _Layer | nn.Module


class _Block(NamedTuple):
    layers: list[list[_Step]]
    added: int  #: channels


def _layers(block: densenet.DenseBlock) -> _Block:
    """Return the layers of a block."""
    modules: list[Any] = [layer.bottle_neck for layer in block.children()]
    last = [[one for one in layer if isinstance(one, nn.Conv2d)][-1] for layer in modules]
    return _Block(layers=[_fused(layer) for layer in modules], added=sum(one.out_channels for one in last))


def _pooled_first(transition: Any) -> list[_Step]:
    """Return the steps of a transition, its pooling before its convolution, which then has a quarter of the pixels.

    An average of pixels and a weighted sum of channels may change places; not so with a dropout between them.
    """
    *before, convolution, pool = transition.down_sample
    pooled = [pool, convolution] if isinstance(convolution, nn.Conv2d) else [convolution, pool]
    return _fused([*before, *pooled])


def _fused(modules: Iterable[nn.Module]) -> list[_Step]:
    """Return modules, each BatchNorm together with what follows it."""
    left, steps = list(modules), list[_Step]()
    while left:
        module = left.pop(0)
        if isinstance(module, nn.BatchNorm2d):
            follows = [_taken(left, kind) for kind in (nn.ReLU, nn.AvgPool2d)]
            steps.append(_Layer(module, *follows))
        else:
            steps.append(module)
    return steps


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
        self.moments = torch.empty(3, channels)
        #: Of the gradient g of the normalised maps: g itself, and its sums as `fused.Kernels.gather` returns them.
        self.total: torch.Tensor | None = None
        self.sums = torch.zeros(2, channels)

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
        self.token = _Add.apply(self.buffer, _channels_last(made), self.token, self._used)
        self._used += made.shape[1]


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: _Buffer, made: torch.Tensor, token: torch.Tensor, at: int) -> torch.Tensor:
        part = slice(at, at + made.shape[1])
        maps.kernels.moments(made, to=maps.moments[:, part], copy=maps.rows[:, part])
        context.maps, context.part, context.shape = maps, part, made.shape
        return token.clone()

    @staticmethod
    @once_differentiable
    def backward(context: Any, token: torch.Tensor) -> tuple[Any, ...]:
        maps, part = context.maps, context.part
        rows = maps.rows[:, part]
        before = _empty(context.shape, rows)
        maps.kernels.finish(
            maps.total[:, part], rows, moments=maps.moments[:, part], sums=maps.sums[:, part], to=before
        )
        if part.start == 0:  # the last to come
            maps.free()
        return None, before, token, None


class _NormaliseMaps(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, _token: torch.Tensor, weight: torch.Tensor, _bias: torch.Tensor, how: tuple[_Buffer, _Layer]
    ) -> torch.Tensor:
        maps, layer = how
        channels, (height, width) = len(weight), maps.sides
        rows = maps.rows[:, :channels]
        pooled = (height, width) if layer.pool else (0, 0)
        moments = maps.moments[:, :channels]
        affine = maps.kernels.follow(layer.norm, moments, pixels=len(rows))
        norm = fused.Norm(moments, weight, affine, layer.relu, pooled)
        sides = (height // 2, width // 2) if layer.pool else (height, width)
        made = _empty((len(rows) // (height * width), channels, *sides), rows)
        maps.kernels.normalise(rows, norm, to=made)
        context.maps, context.norm = maps, norm
        return made

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        maps, norm = context.maps, context.norm
        fresh = maps.total is None  # who has read all maps comes first
        if fresh:
            maps.total = maps.rows.new_empty(maps.rows.shape, dtype=torch.float32)
        part = slice(0, len(norm.weight))
        gathered = maps.kernels.gather(
            _channels_last(gradient),
            maps.rows[:, part],
            norm,
            sums=maps.sums[:, part],
            total=maps.total[:, part],
            fresh=fresh,
        )
        return torch.zeros(()), *gathered, None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, _bias: torch.Tensor, how: tuple[fused.Kernels, _Layer]
    ) -> torch.Tensor:
        kernels, layer = how
        moments, made = torch.empty(3, len(weight)), torch.empty_like(x)
        kernels.moments(x, to=moments)
        affine = kernels.follow(layer.norm, moments, pixels=x.numel() // len(weight))
        norm = fused.Norm(moments, weight, affine, layer.relu)
        kernels.normalise(x, norm, to=made)
        context.save_for_backward(x)
        context.kernels, context.norm = kernels, norm
        return made

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (x,), kernels, norm = context.saved_tensors, context.kernels, context.norm
        gradient, before = _channels_last(gradient), torch.empty_like(x)
        sums = torch.zeros(2, len(norm.weight))
        gathered = kernels.gather(gradient, x, norm, sums=sums)
        kernels.finish(gradient, x, moments=norm.moments, sums=sums, to=before, norm=norm)
        return before, *gathered, None


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)
