"""The network, whole: dense layer, dense block, transition, DenseNet, builders.

Huang, Liu, van der Maaten, Weinberger: "Densely Connected Convolutional Networks", https://arxiv.org/abs/1608.06993
(DenseNet-BC: bottleneck layers, compressing transitions). Module names and their order are those of the reference
notebook, and so is what is built by default, so that its state_dict loads strictly and one seed gives the same weights.
"""

from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.core import networks
from worker.models import recompute


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1 convolution, BN, ReLU, 3x3 convolution: adds `growth_rate` channels behind its input.

    The 1x1 convolution makes `bottleneck` growth rates of channels (section 3, "Bottleneck layers"); with 0 it is left
    out together with the BN and ReLU behind it. Dropout stands behind each convolution.
    """

    def __init__(self, in_channels: int, growth_rate: int, *, bottleneck: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.bottle_neck = nn.Sequential()
        if bottleneck:
            _add_convolution(self.bottle_neck, in_channels, bottleneck * growth_rate, kernel_size=1, dropout=dropout)
            in_channels = bottleneck * growth_rate
        _add_convolution(self.bottle_neck, in_channels, growth_rate, kernel_size=3, dropout=dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth_rate, H, W)."""
        return torch.cat((x, self.bottle_neck(x)), dim=1)

    def of_maps(self, maps: Sequence[torch.Tensor], *, kept_inside: bool) -> torch.Tensor:
        """Return the new maps of what stands before the layer, which backward concatenates anew.

        `kept_inside`: backward also keeps what surrounds the second BN, where the layer has one.
        """
        norms = [index for index, module in enumerate(self.bottle_neck) if isinstance(module, nn.BatchNorm2d)]
        end = norms[1] if kept_inside and len(norms) > 1 else len(self.bottle_neck)
        made = recompute.of_maps(self.bottle_neck[:end], maps)
        for module in self.bottle_neck[end:]:
            made = module(made)
        return made


class DenseBlock(nn.Sequential):
    """Dense layers, each on top of all that stands before it.

    `memory` says what backward keeps of a layer: all that it needs; what it adds and what surrounds its second BN; what
    it adds alone. What is not kept is computed again, to the same bits.
    """

    memory: networks.Memory = "plain"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + layers * growth_rate, H, W)."""
        for layer in self:
            x = layer(x)
        return x

    def of_maps(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what stands before the block, in one map, and what each layer adds, apart from each other."""
        if not self.training:  # then it is frozen, and backward stops behind it
            return [self(torch.cat(maps, dim=1))]
        for layer in self.children():
            assert isinstance(layer, DenseLayer)  # noqa: S101 - what it is made of, said to the type checker
            maps = [*maps, layer.of_maps(maps, kept_inside=self.memory == "balanced")]
        return maps


class Transition(nn.Module):
    """BN, 1x1 convolution, 2x2 average pooling: compresses channels and halves the side.

    Section 3 ("Pooling layers") and the notebook have no ReLU here; the authors' code and torchvision have.
    """

    def __init__(self, in_channels: int, out_channels: int, *, relu: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.down_sample = nn.Sequential()
        _add_convolution(self.down_sample, in_channels, out_channels, kernel_size=1, relu=relu, dropout=dropout)
        _add(self.down_sample, nn.AvgPool2d(kernel_size=2, stride=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2)."""
        pooled: torch.Tensor = self.down_sample(x)
        return pooled

    def of_maps(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return its output for the maps that stand before it, of which alone backward keeps anything."""
        if not self.training:
            return [self(torch.cat(maps, dim=1))]
        return [recompute.halved(recompute.of_maps(self.down_sample[:-1], maps))]


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, global average pooling, linear classifier.

    `reduction` is the share of channels that a transition keeps, rounded down (the paper's compression); ValueError
    where that leaves none. The stem makes `stem_channels`, else two growth rates. `memory` is that of the blocks; but
    for "plain", stem, transitions and the last BN are computed again as well.
    """

    memory: networks.Memory = "plain"

    def __init__(
        self,
        *,
        growth_rate: int,
        blocks: Sequence[int],
        num_classes: int,
        reduction: float = 0.5,
        stem: networks.Stem = "cifar",
        stem_channels: int | None = None,
        bottleneck: int = 4,
        transition_relu: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = stem_channels or 2 * growth_rate
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
            self.stem: nn.Module = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            )
        else:
            self.conv1 = nn.Conv2d(3, channels, kernel_size=3, padding=1, bias=False)
            self.stem = nn.Identity()

        self.features = nn.Sequential()
        last = len(blocks) - 1
        for index, layers in enumerate(blocks):
            # The notebook calls the last block by another name than the others.
            name = f"dense_block_layer_{index}" if index < last else f"dense_block{index}"
            block = _dense_block(channels, growth_rate, layers, bottleneck=bottleneck, dropout=dropout)
            self.features.add_module(name, block)
            channels += layers * growth_rate
            if index < last:
                kept = int(reduction * channels)
                if kept == 0:
                    raise ValueError(f"a reduction of {reduction} leaves transition {index} no channel of {channels}")
                transition = Transition(channels, kept, relu=transition_relu, dropout=dropout)
                self.features.add_module(f"transition_layer_{index}", transition)
                channels = kept
        self.features.add_module("bn", nn.BatchNorm2d(channels))
        self.features.add_module("relu", nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.linear = nn.Linear(channels, num_classes)

    def use_memory(self, mode: networks.Memory) -> None:
        """Let backward keep more or less of every part."""
        self.memory = mode
        for module in self.features:
            if isinstance(module, DenseBlock):
                module.memory = mode

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures (N, 3, H, W) to what the classifier sees of them: (N, channels)."""
        lean = self.memory != "plain" and torch.is_grad_enabled()
        maps = self._lean_features(images) if lean else self.features(self.stem(self.conv1(images)))
        pooled: torch.Tensor = self.avgpool(maps)
        return pooled.flatten(1)

    def _lean_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what `features` does; backward keeps what each layer adds, and no two copies of it."""
        if self.training and isinstance(self.stem, nn.Sequential):
            maps = [recompute.of_maps(nn.Sequential(self.conv1, *self.stem), [images])]
        else:
            maps = [self.stem(self.conv1(images))]
        *parts, _, _ = self.features
        for part in parts:
            assert isinstance(part, DenseBlock | Transition)  # noqa: S101 - what stands before BN and ReLU
            maps = part.of_maps(maps)
        last = self.features[-2:]
        made: torch.Tensor = recompute.of_maps(last, maps) if last[0].training else last(torch.cat(maps, dim=1))
        return made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures (N, 3, H, W) to logits (N, num_classes)."""
        logits: torch.Tensor = self.linear(self.embed(images))
        return logits


def _dense_block(channels: int, growth_rate: int, layers: int, *, bottleneck: int, dropout: float) -> DenseBlock:
    block = DenseBlock()
    for index in range(layers):
        layer = DenseLayer(channels + index * growth_rate, growth_rate, bottleneck=bottleneck, dropout=dropout)
        block.add_module(f"bottle_neck_layer_{index}", layer)
    return block


def _add_convolution(
    to: nn.Sequential, inputs: int, outputs: int, *, kernel_size: int, relu: bool = True, dropout: float
) -> None:
    """Add BN, ReLU, convolution, dropout: the order that section 3 ("Composite function") calls H."""
    _add(to, nn.BatchNorm2d(inputs))
    if relu:
        _add(to, nn.ReLU(inplace=True))
    _add(to, nn.Conv2d(inputs, outputs, kernel_size=kernel_size, padding=kernel_size // 2, bias=False))
    if dropout:
        to.add_module(f"dropout{len(to)}", nn.Dropout(dropout, inplace=True))


def _add(to: nn.Sequential, module: nn.Module) -> None:
    """Add a module by the next number; dropout has none, so that weights fit with it and without."""
    numbered = sum(not isinstance(each, nn.Dropout) for each in to)
    to.add_module(str(numbered), module)


def densenet121(*, num_classes: int, stem: networks.Stem = "cifar") -> DenseNet:
    """Return DenseNet-121: 6,948,098 parameters with the 3x3 stem and two classes."""
    return DenseNet(growth_rate=32, blocks=(6, 12, 24, 16), num_classes=num_classes, stem=stem)
