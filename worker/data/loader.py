"""Batches of pictures whose every number depends on seed, epoch and index alone, never on the loading processes.

A stock DataLoader draws augmentation from a random stream of each worker, so 0, 1 and 2 workers give other crops.
Here an item is asked for by (epoch, index) and seeds the generator from (seed, epoch, index) before it is augmented,
and an epoch's order comes from (seed, epoch). A batch is thus the same bit for bit for any number of workers, and an
epoch can be entered at any step without loading what lies before it.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from orchestrator import config
from orchestrator.core import jobs, specs
from worker import picks, processor, protocol
from worker.data import augment as augmentation
from worker.data import crews, decoded, imagefolder, makers, pixels, shares
from worker.data.crews import Batch, Key

__all__ = ["Batch", "Key", "Loader", "SeededImageFolder"]

#: Sets of fewer bytes are loaded by the thread that trains: choosing and starting others costs more than decoding does
#: (8 MiB of JPEG is half a second an epoch on one core), and a short job would wait for the start alone.
SMALL_SET_BYTES = 8 * 2**20

#: Bytes of pictures that are decoded one after the other before they are augmented: each of both runs faster where it
#: finds in the processor's cache what the picture before it has left there.
_HELD_BYTES = 2 * 2**20


class SeededImageFolder(Dataset[tuple[Tensor, int]]):
    """One split. `dataset[epoch, index]` is (picture: float32 of shape (3, side, side), class index).

    The train split is cropped and mirrored at random, seeded by (seed, epoch, index); the validation split is the
    same in every epoch, and so is the other without `augment`. Transforms and their order are the reference notebook's.
    """

    def __init__(
        self,
        info: protocol.DatasetInfo,
        spec: specs.JobSpec,
        split: jobs.Split,
        *,
        augment: bool = True,
        cache: decoded.Decoded | None = None,
    ) -> None:
        layout = imagefolder.discover(Path(info.path))
        self.root = layout.root
        self.pictures = layout.pictures[split]
        self._random = augment and split == "train"
        self._augmentation = augmentation.Augmentation(spec)
        self._side = max((spec.image_size, *spec.progressive_sizes))
        self._cache = cache
        self._first = 0 if split == "train" else len(layout.pictures["train"])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        pictures, labels = self.__getitems__([key])
        return pictures[0], int(labels[0])

    def __getitems__(self, keys: list[Key], *, into: makers.Place | None = None) -> Batch:
        """Return the pictures of a batch, normalised, and their classes; with `into` they are made there."""
        pictures = self._augmentation.normalised(list(self._planes(keys)), into=into)
        return pictures, torch.tensor([self.pictures[index].label for _, index in keys])

    def values(self, count: int) -> int:
        """Return how many numbers so many pictures are at most, of any epoch."""
        return count * 3 * self._side**2

    def _planes(self, keys: list[Key]) -> Iterator[augmentation.Planes]:
        held: list[tuple[decoded.Picture, Key]] = []
        size = 0
        for key in keys:
            held.append((self._decoded(key[1]), key))  # without a name, which would hold it while the next is decoded
            size += math.prod(held[-1][0].shape)
            if size >= _HELD_BYTES:
                yield from itertools.starmap(self._augmented, held)
                held.clear()
                size = 0
        yield from itertools.starmap(self._augmented, held)

    def _augmented(self, picture: decoded.Picture, key: Key) -> augmentation.Planes:
        epoch, index = key
        if not self._random:
            return self._augmentation.validation(picture)
        return self._augmentation.training(picture, epoch=epoch, index=index)

    def _decoded(self, index: int) -> decoded.Picture:
        def decode() -> pixels.Pixels:
            return pixels.read(self.root / self.pictures[index].path)

        return decode() if self._cache is None else self._cache.picture(self._first + index, decode)


class Loader:
    """The batches of a data set: `train` and `validation` yield (pictures (N, 3, side, side), classes (N,)).

    With `settings`, decoded pictures are kept on this host, and taken from there. `close` lets others find them. A
    `share` of several ranks loads what this rank learns from, and the batches that it is dealt of other passes.
    """

    def __init__(
        self,
        info: protocol.DatasetInfo,
        spec: specs.JobSpec,
        *,
        settings: config.Settings | None = None,
        pin_memory: bool = False,
        share: shares.Share = shares.ALONE,
    ) -> None:
        self.share = share
        self.images = {"train": info.counts["train"], "val": info.counts["val"]}
        self.steps_per_epoch = steps_per_epoch(info.counts["train"], spec.step_size)
        self._spec = spec
        self._info = info
        self._settings = settings
        self._cache = decoded.of(info, settings) if settings is not None else None
        split = functools.partial(SeededImageFolder, info, spec, cache=self._cache)
        self._train, self._validation = split("train"), split("val")
        self._unaugmented = split("train", augment=False)
        # RandAugment draws from torch's global generator, which threads would share.
        kind: crews.Kind = "processes" if spec.randaugment else "threads"
        workers = 0 if info.bytes < SMALL_SET_BYTES else spec.loader_workers
        self._crew = crews.Crew(kind, workers, pin_memory=pin_memory)

    def choose(self, epoch: int) -> str | None:
        """Let threads or processes load, whichever is faster here with pictures of `epoch`; return what was found.

        Takes 0.15 to 0.5 s for two workers and photographs of 500 pixels, 5 s for those of a camera; once for each kind
        of training on a host. None where there is nothing to choose.
        """
        if not self._crew.workers or self._spec.randaugment:
            return None
        pick = self._pick()
        recalled = pick.recall() if pick is not None else None
        for kind in get_args(crews.Kind):
            if kind == recalled:
                self._crew = crews.Crew(kind, self._crew.workers, pin_memory=self._crew.pin_memory)
                return f"{self._crew.workers} {kind}, as was measured on this host before"
        if self._cache is not None:
            self._cache.refresh()
        order = [(epoch, index) for index in epoch_order(self.images["train"], seed=self._spec.seed, epoch=epoch)]
        self._crew, said = crews.faster(self._crew, self._train, order)
        if pick is not None:
            pick.keep(self._crew.kind)
        return said

    def _pick(self) -> picks.Pick | None:
        """Return what this host remembers of who loads such pictures faster; without settings it remembers nothing."""
        if self._settings is None:
            return None
        fields = ("image_size", "pipeline", "crop_scale", "crop_padding", "flip")
        rests_on = {name: getattr(self._spec, name) for name in fields} | {
            "pick": "loading, by batches lent in shared memory",
            "data": self._info.hash,
            "decoded": decoded.taken(self._settings.data_dir, self._info.hash) > 0,
            "workers": self._crew.workers,
            "processor": processor.MODEL,
            "cores": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
        }
        return picks.Pick(self._settings, rests_on)

    def train(self, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """Yield each step's pictures of `epoch` from step `start_step` (from 0) on; what lies before is not loaded.

        Where gradients accumulate, that is several batches in one; `parts` has their sizes. Of several ranks each gets
        what `shares.Share.loaded` says, with neighbours where pictures are mixed.
        """
        own = self.own(epoch, neighbours=self._spec.mixes)
        steps = [[(epoch, index) for index in step] for step in own[start_step:]]
        with self._cached():
            yield from self._crew.load(self._train, steps, stay=True)

    def own(self, epoch: int, *, neighbours: bool) -> list[list[int]]:
        """Return the indices of the pictures that this rank has of each step of an epoch."""
        order = epoch_order(self.images["train"], seed=self._spec.seed, epoch=epoch)
        steps = _batches(order, self._spec.step_size)
        if self.share.ranks == 1:
            return steps
        sizes = [parts(len(step), self._spec.batch_size) for step in steps]
        places = [self.share.loaded(batches, neighbours=neighbours) for batches in sizes]
        return [[step[place] for place in those] for step, those in zip(steps, places, strict=True)]

    def step_sizes(self) -> list[int]:
        """Return the number of pictures of each step of an epoch, over all ranks."""
        return parts(self.images["train"], self._spec.step_size)

    def batches(self, split: jobs.Split) -> list[int]:
        """Return the sizes of the batches of a pass over a split in its order, over all ranks."""
        return parts(self.images[split], self._spec.batch_size)

    def unaugmented(self) -> Iterator[Batch]:
        """Yield the pictures of the train split once, in their order, as validation would see them."""
        with self._cached():
            yield from self._crew.load(self._unaugmented, self._in_order("train"))

    def validation(self, *, turn: int = 0) -> Iterator[Batch]:
        """Yield the batches of the validation split, unshuffled; ranks change theirs by `turn`.

        So in a few epochs the rank that keeps decoded pictures has seen them all.
        """
        with self._cached():
            yield from self._crew.load(self._validation, self._in_order("val", turn=turn))

    def close(self) -> None:
        """Wait until the decoded pictures are on the disk, and end the processes that loaded them."""
        self._crew.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _cached(self) -> Iterator[None]:
        """Look before a pass over pictures what others have decoded, and keep behind it what it has decoded."""
        if self._cache is None:
            yield
            return
        self._cache.refresh()
        yield
        self._cache.keep()

    def _in_order(self, split: jobs.Split, *, turn: int = 0) -> list[list[Key]]:
        batches = _batches(range(self.images[split]), self._spec.batch_size)
        return [[(0, i) for i in batches[number]] for number in self.share.dealt(len(batches), turn=turn)]


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


def _batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    batches = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches
