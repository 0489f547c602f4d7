"""The reference notebook's network as it stands there: what ours is compared with."""

from typing import cast

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        inner_channel = 4 * growth_rate
        self.bottle_neck = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, inner_channel, kernel_size=1, bias=False),
            nn.BatchNorm2d(inner_channel),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner_channel, growth_rate, kernel_size=3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.bottle_neck(x)], 1)


class Transition(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down_sample = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.AvgPool2d(2, stride=2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.down_sample(x))


class DenseNet(nn.Module):
    def __init__(
        self, nblocks: tuple[int, ...], growth_rate: int = 12, reduction: float = 0.5, num_class: int = 100
    ) -> None:
        super().__init__()
        self.growth_rate = growth_rate
        inner_channels = 2 * growth_rate
        self.conv1 = nn.Conv2d(3, inner_channels, kernel_size=3, padding=1, bias=False)
        self.features = nn.Sequential()
        for index in range(len(nblocks) - 1):
            self.features.add_module(
                f"dense_block_layer_{index}", self._make_dense_layers(inner_channels, nblocks[index])
            )
            inner_channels += growth_rate * nblocks[index]
            out_channels = int(reduction * inner_channels)
            self.features.add_module(f"transition_layer_{index}", Transition(inner_channels, out_channels))
            inner_channels = out_channels
        self.features.add_module(
            f"dense_block{len(nblocks) - 1}", self._make_dense_layers(inner_channels, nblocks[len(nblocks) - 1])
        )
        inner_channels += growth_rate * nblocks[len(nblocks) - 1]
        self.features.add_module("bn", nn.BatchNorm2d(inner_channels))
        self.features.add_module("relu", nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.linear = nn.Linear(inner_channels, num_class)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = self.conv1(x)
        output = self.features(output)
        output = self.avgpool(output)
        output = output.view(output.size()[0], -1)
        return cast("torch.Tensor", self.linear(output))

    def _make_dense_layers(self, in_channels: int, nblocks: int) -> nn.Sequential:
        dense_block = nn.Sequential()
        for index in range(nblocks):
            dense_block.add_module(f"bottle_neck_layer_{index}", Bottleneck(in_channels, self.growth_rate))
            in_channels += self.growth_rate
        return dense_block
