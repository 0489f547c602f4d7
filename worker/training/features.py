"""What the classifier sees of each picture, computed once: while it learns alone, nothing before it changes."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from worker.data import loader
from worker.models import densenet
from worker.training import world

#: Passes batches on and looks whether the work is to stop: computing features takes a whole pass over the pictures.
#: The sizes are those of the whole pass, over all ranks.
Watched = Callable[[Iterable[loader.Batch], Sequence[int]], Iterator[loader.Batch]]


class Features:
    """The batches of a loader as the classifier sees them: (features (N, channels), classes (N,)).

    Order and sizes are the loader's own; the pictures are those of validation, without augmentation. Everything is
    computed at construction, in the same batches each time, so that a training that goes on sees the same bits. Several
    ranks compute those of the batches that each is dealt, and share those of the train split.
    """

    def __init__(
        self,
        network: densenet.DenseNet,
        batches: loader.Loader,
        device: torch.device,
        *,
        watched: Watched,
        ranks: world.World = world.ALONE,
    ) -> None:
        network.eval()
        self._batches = batches
        sizes = {split: batches.batches(split) for split in ("train", "val")}
        found = [_seen(network, batch, device) for batch in watched(batches.unaugmented(), sizes["train"])]
        self._train = _shared(found, sizes["train"], network.linear.in_features, ranks)
        self._validation = [_seen(network, batch, device) for batch in watched(batches.validation(), sizes["val"])]

    def train(self, epoch: int, *, start_step: int = 0) -> Iterator[loader.Batch]:
        """Yield the batches of `epoch` from its step `start_step` (from 0) on."""
        features, targets = self._train
        for indices in self._batches.own(epoch, neighbours=False)[start_step:]:
            yield features[indices], targets[indices]

    def validation(self, *, turn: int = 0) -> Iterator[loader.Batch]:  # noqa: ARG002 - pictures take turns, not these
        """Yield the batches of the validation split, unshuffled."""
        yield from self._validation


def _shared(found: Sequence[loader.Batch], sizes: Sequence[int], channels: int, ranks: world.World) -> loader.Batch:
    """Return features and classes of a whole split, of whose batches each rank has found its own."""
    starts = list(itertools.accumulate(sizes, initial=0))
    features, targets = torch.zeros(starts[-1], channels), torch.zeros(starts[-1], dtype=torch.int64)
    for number, (seen, classes) in zip(ranks.share.dealt(len(sizes)), found, strict=True):
        place = slice(starts[number], starts[number + 1])
        features[place], targets[place] = seen, classes
    return ranks.total(features), ranks.total(targets)


@torch.no_grad()
def _seen(network: densenet.DenseNet, batch: loader.Batch, device: torch.device) -> loader.Batch:
    images, targets = batch
    return network.embed(images.to(device, non_blocking=True)).cpu(), targets
