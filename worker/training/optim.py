"""From a job spec to its optimizer."""

from collections.abc import Iterable

import torch
from torch import nn

from orchestrator.core import specs


def build(spec: specs.JobSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the spec's optimizer: Adam (https://arxiv.org/abs/1412.6980) with PyTorch's other defaults."""
    return torch.optim.Adam(parameters, lr=spec.lr)
