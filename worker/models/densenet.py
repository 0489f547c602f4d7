"""The network, whole: dense layer, transition, DenseNet, builders.

Huang, Liu, van der Maaten, Weinberger: "Densely Connected Convolutional Networks", https://arxiv.org/abs/1608.06993
(DenseNet-BC: bottleneck layers, compressing transitions). Module names, their order, and a transition without ReLU
are those of the reference notebook, so that its state_dict loads strictly and one seed gives the same weights.
"""

from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.core import networks

#: Channels of a layer's bottleneck for each one that it adds (section 3, "Bottleneck layers").
BOTTLENECK = 4

DENSENET121_BLOCKS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1 convolution, BN, ReLU, 3x3 convolution: adds `growth_rate` channels behind its input."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        inner_channels = BOTTLENECK * growth_rate
        self.bottle_neck = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, inner_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(inner_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner_channels, growth_rate, kernel_size=3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth_rate, H, W)."""
        return torch.cat((x, self.bottle_neck(x)), dim=1)


class Transition(nn.Module):
    """BN, 1x1 convolution, 2x2 average pooling: compresses channels and halves the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down_sample = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.AvgPool2d(kernel_size=2, stride=2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2)."""
        pooled: torch.Tensor = self.down_sample(x)
        return pooled


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, global average pooling, linear classifier.

    `reduction` is the share of channels that a transition keeps, rounded down (the paper's compression); ValueError
    where that leaves none.
    """

    def __init__(
        self,
        *,
        growth_rate: int,
        blocks: Sequence[int],
        num_classes: int,
        reduction: float = 0.5,
        stem: networks.Stem = "cifar",
    ) -> None:
        super().__init__()
        channels = 2 * growth_rate
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
            self.features.add_module(name, _dense_block(channels, growth_rate, layers))
            channels += layers * growth_rate
            if index < last:
                kept = int(reduction * channels)
                if kept == 0:
                    raise ValueError(f"a reduction of {reduction} leaves transition {index} no channel of {channels}")
                self.features.add_module(f"transition_layer_{index}", Transition(channels, kept))
                channels = kept
        self.features.add_module("bn", nn.BatchNorm2d(channels))
        self.features.add_module("relu", nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised pictures (N, 3, H, W) to logits (N, num_classes)."""
        maps = self.features(self.stem(self.conv1(images)))
        logits: torch.Tensor = self.linear(self.avgpool(maps).flatten(1))
        return logits


def _dense_block(channels: int, growth_rate: int, layers: int) -> nn.Sequential:
    block = nn.Sequential()
    for index in range(layers):
        block.add_module(f"bottle_neck_layer_{index}", DenseLayer(channels + index * growth_rate, growth_rate))
    return block


def densenet121(*, num_classes: int, stem: networks.Stem = "cifar") -> DenseNet:
    """Return DenseNet-121: 6,948,098 parameters with the 3x3 stem and two classes."""
    return DenseNet(growth_rate=32, blocks=DENSENET121_BLOCKS, num_classes=num_classes, stem=stem)
