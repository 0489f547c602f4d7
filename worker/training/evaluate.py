"""One pass over pictures without learning: sums and confusion matrix."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from worker.training import metrics


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a network does on a split."""

    sums: metrics.Sums
    confusion: metrics.Confusion


@torch.inference_mode()
def measure(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    num_classes: int,
    device: torch.device,
) -> Measured:
    """Measure `model` on batches of (images (N, 3, H, W), targets (N,)); leaves it in evaluation mode.

    On a GPU nothing waits for a batch: losses stay on the device until the end. A loss that is not finite is measured
    as such: what it means, the caller knows.
    """
    started = time.monotonic()
    model.eval()
    losses: list[torch.Tensor] = []
    sizes: list[int] = []
    cells = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    for images, targets in batches:
        truth = targets.to(device, non_blocking=True)
        logits = model(images.to(device, non_blocking=True))
        losses.append(functional.cross_entropy(logits, truth))
        sizes.append(len(targets))
        cells.index_add_(0, truth * num_classes + logits.max(dim=1).indices, torch.ones_like(truth))
    confusion = cells.view(num_classes, num_classes).cpu().numpy()
    sums = metrics.Sums(correct=int(confusion.trace()), images=sum(sizes))
    for loss, size in zip(torch.stack(losses).tolist(), sizes, strict=True):
        sums.loss += loss * size
    sums.seconds = time.monotonic() - started
    return Measured(sums=sums, confusion=confusion)
