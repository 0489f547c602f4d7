"""Batches of pictures whose every number depends on seed, epoch and index alone, never on the loading processes.

A stock DataLoader draws augmentation from a random stream of each worker, so 0, 1 and 2 workers give other crops.
Here an item is asked for by (epoch, index) and seeds the generator from (seed, epoch, index) before it is augmented,
and an epoch's order comes from (seed, epoch). A batch is thus the same bit for bit for any number of workers, and an
epoch can be entered at any step without loading what lies before it.
"""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from orchestrator.core import jobs, specs
from worker import protocol
from worker.data import augment as augmentation
from worker.data import imagefolder, pixels

#: Sets of fewer bytes are loaded in the training process itself: starting workers costs more than decoding them does
#: (8 MiB of JPEG is half a second an epoch on one core), and a short job would wait for the start alone.
SMALL_SET_BYTES = 8 * 2**20

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]


class SeededImageFolder(Dataset[tuple[Tensor, int]]):
    """One split. `dataset[epoch, index]` is (picture: float32 of shape (3, side, side), class index).

    The train split is cropped and mirrored at random, seeded by (seed, epoch, index); the validation split is the
    same in every epoch, and so is the other without `augment`. Transforms and their order are the reference notebook's.
    """

    def __init__(
        self, info: protocol.DatasetInfo, spec: specs.JobSpec, split: jobs.Split, *, augment: bool = True
    ) -> None:
        layout = imagefolder.discover(Path(info.path))
        self.root = layout.root
        self.pictures = layout.pictures[split]
        self._random = augment and split == "train"
        self._augmentation = augmentation.Augmentation(spec)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        return self._augmentation.normalised(self._picture(key)), self.pictures[key[1]].label

    def __getitems__(self, keys: list[Key]) -> Batch:
        """Return the pictures of a batch, normalised at once, and their classes."""
        pictures = self._augmentation.normalised(np.stack([self._picture(key) for key in keys]))
        return pictures, torch.tensor([self.pictures[index].label for _, index in keys])

    def _picture(self, key: Key) -> augmentation.Planes:
        epoch, index = key
        decoded = pixels.read(self.root / self.pictures[index].path)
        if not self._random:
            return self._augmentation.validation(decoded)
        return self._augmentation.training(decoded, epoch=epoch, index=index)


class Loader:
    """The batches of a data set: `train` and `validation` yield (pictures (N, 3, side, side), classes (N,)).

    Worker processes are kept from epoch to epoch and end with the training that started them; the signal of a drain
    does not end them.
    """

    def __init__(self, info: protocol.DatasetInfo, spec: specs.JobSpec, *, pin_memory: bool = False) -> None:
        self.images = {"train": info.counts["train"], "val": info.counts["val"]}
        self.steps_per_epoch = steps_per_epoch(info.counts["train"], spec.step_size)
        self._info = info
        self._spec = spec
        self._order = _Order()
        self._workers = workers = 0 if info.bytes < SMALL_SET_BYTES else spec.loader_workers
        self._train = _data_loader(
            SeededImageFolder(info, spec, "train"), self._order, workers, pin_memory=pin_memory, persistent=workers > 0
        )
        validation = _Order(self._in_order("val"))
        self._validation = _data_loader(
            SeededImageFolder(info, spec, "val"), validation, workers, pin_memory=pin_memory, persistent=False
        )

    def train(self, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """Yield each step's pictures of `epoch` from step `start_step` (from 0) on; what lies before is not loaded.

        Where gradients accumulate, that is several batches in one; `parts` has their sizes.
        """
        steps = [[(epoch, index) for index in step] for step in self.order(epoch)]
        self._order.batches = steps[start_step:]
        yield from self._train

    def order(self, epoch: int) -> list[list[int]]:
        """Return the indices of the pictures of each step of an epoch."""
        order = epoch_order(self.images["train"], seed=self._spec.seed, epoch=epoch)
        return _batches(order, self._spec.step_size)

    def unaugmented(self) -> Iterator[Batch]:
        """Yield the pictures of the train split once, in their order, as validation would see them."""
        pictures = SeededImageFolder(self._info, self._spec, "train", augment=False)
        yield from _data_loader(
            pictures, _Order(self._in_order("train")), self._workers, pin_memory=False, persistent=False
        )

    def validation(self) -> Iterator[Batch]:
        """Yield the batches of the validation split, unshuffled."""
        yield from self._validation

    def _in_order(self, split: jobs.Split) -> list[list[Key]]:
        return [[(0, i) for i in batch] for batch in _batches(range(self.images[split]), self._spec.batch_size)]


def epoch_order(images: int, *, seed: int, epoch: int) -> list[int]:
    """Return the permutation of 0 … images-1 in which an epoch sees the pictures."""
    generator = torch.Generator().manual_seed(augmentation.mixed(seed, epoch))
    order: list[int] = torch.randperm(images, generator=generator).tolist()
    return order


def parts(images: int, batch_size: int) -> list[int]:
    """Return the sizes of the batches of so many pictures, as an epoch's are."""
    return [len(batch) for batch in _batches(range(images), batch_size)]


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of batches: the last one is kept, a last one of one picture joins the batch before it."""
    full, rest = divmod(images, batch_size)
    return max(1, full + (rest > 1))


class _Order(Sampler[list[Key]]):
    """A batch sampler whose batches are set anew before each epoch."""

    def __init__(self, batches: list[list[Key]] | None = None) -> None:
        self.batches = batches or []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _data_loader(
    dataset: SeededImageFolder, order: _Order, workers: int, *, pin_memory: bool, persistent: bool
) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=persistent,
        worker_init_fn=_ignore_sigterm,
        # Its own: a DataLoader without one takes a number from torch's global stream at every epoch.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch  # `__getitems__` has made it whole


def _ignore_sigterm(_worker: int) -> None:
    # A drain may signal the whole process group; the training still needs its batch to reach the next step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    batches = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches
