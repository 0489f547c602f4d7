"""A running average of the weights: what is measured, and used in the end, in place of the last step's weights."""

import copy

import torch
from torch import nn

from worker.models import densenet


class Average:
    """The network of the average. BatchNorm's running statistics are averaged as weights are, its counters copied."""

    def __init__(self, network: densenet.DenseNet, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, *, step: int) -> None:
        """Take in the weights after `step` steps."""
        kept = decay(self._decay, step=step)
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        # What does not change stays as it is, to the last bit. All at once: a GPU has hundreds of things less to begin.
        torch._foreach_lerp_(*_columns(weights), 1 - kept)
        if counters:  # of BatchNorm: a network may have none
            torch._foreach_copy_(*_columns(counters))


def _columns(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [average for average, _ in pairs], [value for _, value in pairs]


def decay(most: float, *, step: int) -> float:
    """Return the share of the average that stays at step `step` (from 1): nothing of what was there before the first.

    Then less at first than in the end: min(most, (1 + step) / (10 + step)), of
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    """
    return min(most, (1 + step) / (10 + step)) if step > 1 else 0.0
