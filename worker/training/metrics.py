"""Figures of one split: running sums, and what follows from a confusion matrix."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from orchestrator.core import jobs
from worker import protocol

#: Rows: truth, columns: prediction; shape (classes, classes).
Confusion = npt.NDArray[np.int64]


class Sums(BaseModel):
    """Sums over the pictures of one split in one epoch; a checkpoint carries those of an unfinished epoch."""

    loss: float = 0.0  #: of the batches' mean losses, each times its pictures, added in order
    correct: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, *, loss: float, correct: int, images: int) -> None:
        """Add a batch: its mean loss in nats, its correct predictions, its pictures."""
        self.loss += loss * images
        self.correct += correct
        self.images += images

    @property
    def mean_loss(self) -> float:
        """Mean loss of a picture, in nats."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, 0 to 1."""
        return self.correct / self.images

    def row(
        self, *, epoch: int, split: jobs.Split, lr: float | None = None, usage: protocol.Usage | None = None
    ) -> protocol.EpochMetrics:
        """Return the epoch's row; `epoch` counts from 1."""
        return protocol.EpochMetrics(
            epoch=epoch,
            split=split,
            loss=self.mean_loss,
            accuracy=self.accuracy,
            images=self.images,
            seconds=self.seconds,
            lr=lr,
            usage=usage,
        )


def precision(confusion: Confusion) -> tuple[float, ...]:
    """Return each class's share of true ones among its predictions; 0 where nothing was predicted as the class."""
    return _shares(confusion, confusion.sum(axis=0))


def recall(confusion: Confusion) -> tuple[float, ...]:
    """Return the share of each class's pictures that was found; 0 where the class has none."""
    return _shares(confusion, confusion.sum(axis=1))


def _shares(confusion: Confusion, totals: npt.NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((np.diagonal(confusion) / np.maximum(totals, 1)).tolist())
