"""What the classifier sees of each picture, computed once: while it learns alone, nothing before it changes."""

from collections.abc import Callable, Iterable, Iterator

import torch

from worker.data import loader
from worker.models import densenet

#: Passes batches on and looks whether the work is to stop: computing features takes a whole pass over the pictures.
Watched = Callable[[Iterable[loader.Batch]], Iterator[loader.Batch]]


class Features:
    """The batches of a loader as the classifier sees them: (features (N, channels), classes (N,)).

    Order and sizes are the loader's own; the pictures are those of validation, without augmentation. Everything is
    computed at construction, in the same batches each time, so that a training that goes on sees the same bits.
    """

    def __init__(
        self, network: densenet.DenseNet, batches: loader.Loader, device: torch.device, *, watched: Watched
    ) -> None:
        network.eval()
        self._batches = batches
        self._train = _computed(network, watched(batches.unaugmented()), device)
        self._validation = [_seen(network, batch, device) for batch in watched(batches.validation())]

    def train(self, epoch: int, *, start_step: int = 0) -> Iterator[loader.Batch]:
        """Yield the batches of `epoch` from its step `start_step` (from 0) on."""
        features, targets = self._train
        for indices in self._batches.order(epoch)[start_step:]:
            yield features[indices], targets[indices]

    def validation(self) -> Iterator[loader.Batch]:
        """Yield the batches of the validation split, unshuffled."""
        yield from self._validation


def _computed(network: densenet.DenseNet, batches: Iterable[loader.Batch], device: torch.device) -> loader.Batch:
    features, targets = zip(*(_seen(network, batch, device) for batch in batches), strict=True)
    return torch.cat(features), torch.cat(targets)


@torch.no_grad()
def _seen(network: densenet.DenseNet, batch: loader.Batch, device: torch.device) -> loader.Batch:
    images, targets = batch
    return network.embed(images.to(device, non_blocking=True)).cpu(), targets
