"""BatchNorm over the batches of all ranks together, so that several ranks train as one process would.

Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, over a batch that lies in parts. torch.nn.SyncBatchNorm does it on
GPUs alone; here it is the same code on every device. In evaluation nothing differs from the plain layer.
"""

from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Peers(Protocol):
    """The ranks that train together."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of all ranks' values, in place of them."""
        ...

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values (N) of every rank: (ranks, N)."""
        ...


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of all ranks' pictures; it takes over the weights and buffers of `plain`."""

    def __init__(self, plain: nn.BatchNorm2d, peers: Peers) -> None:
        super().__init__(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.training = plain.training
        self._peers = peers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same shape; N is this rank's part and may be 0."""
        if not self.training:
            return super().forward(x)
        count, mean, variance = _statistics(x, self._peers)
        self._take_in(count, mean, variance)
        normalised: torch.Tensor = _Normalise.apply(
            x, self.weight, self.bias, mean.float(), variance.float(), count.float(), self.eps, self._peers
        )
        return normalised

    @torch.no_grad()
    def _take_in(self, count: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Let the running statistics follow, as the plain layer does: the variance without bias."""
        assert self.running_mean is not None  # noqa: S101 - of every layer here, said to the type checker
        assert self.running_var is not None  # noqa: S101 - the same
        assert self.num_batches_tracked is not None  # noqa: S101 - the same
        assert self.momentum is not None  # noqa: S101 - the same
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.float(), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).float(), self.momentum)


def convert(network: nn.Module, peers: Peers) -> None:
    """Put this layer in the place of every BatchNorm2d of the network; parameters and their order stay."""
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm2d):
            setattr(network, name, BatchNorm2d(module, peers))
        else:
            convert(module, peers)


@torch.no_grad()
def _statistics(x: torch.Tensor, peers: Peers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the number of values, the mean and the variance of each channel over all ranks, in double precision.

    Of each rank's own mean and variance, which lose nothing where a mean is large:
    https://doi.org/10.1080/00031305.1983.10483115 (Chan, Golub and LeVeque).
    """
    channels = x.shape[1]
    own = x.new_zeros(1 + 2 * channels, dtype=torch.float64)
    if len(x):  # the kernel divides by zero where there is nothing
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        own = torch.cat((mean.new_full((1,), x.numel() // channels), mean, variance)).double()
    counts, means, variances = torch.split(peers.gathered(own), [1, channels, channels], dim=1)
    count = counts.sum()
    common = (counts * means).sum(dim=0) / count
    return count, common, (counts * (variances + (means - common).square())).sum(dim=0) / count


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are of x and of the peers' x."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd hands its arguments over by position
        context: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        count: torch.Tensor,
        eps: float,
        peers: Peers,
    ) -> torch.Tensor:
        context.save_for_backward(x, weight, mean, variance, count)
        context.eps, context.peers = eps, peers
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, variance, count = context.saved_tensors
        scale = (variance + context.eps).rsqrt()
        if len(x):
            # As if the statistics were constants; the sums of weight and bias are what the rest is made of.
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, mean, variance, mean, scale, False, context.eps, [True, True, True]
            )
        else:
            of_x, of_weight, of_bias = torch.zeros_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        if not context.needs_input_grad[0]:
            return None, of_weight, of_bias, None, None, None, None, None
        sum_of_weight, sum_of_bias = context.peers.total(torch.stack((of_weight, of_bias)))
        shift, slope = (_by_channel(-weight * scale * each / count) for each in (sum_of_bias, scale * sum_of_weight))
        of_x = torch.addcmul(of_x, x - _by_channel(mean), slope).add_(shift)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None, None


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    return values[None, :, None, None]
