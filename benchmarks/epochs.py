"""Epochs of training pictures without a training: `python -m benchmarks.epochs SIDE FOLDER HOME EPOCHS`.

Prints the seconds of each epoch as a JSON list. SIDE is notebook, or one of orch's pipelines: compat or fast; HOME is a
folder for orch's caches.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from orchestrator import config
from orchestrator.core import specs
from worker.data import loader, supply

BATCH_SIZE = 4
WORKERS = 2

#: Yields the pictures of an epoch, batch by batch.
Epoch = Callable[[int], Iterator[torch.Tensor]]


def notebook(folder: Path) -> Epoch:
    """Return the notebook's training loader."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.490, 0.449, 0.411], [0.231, 0.221, 0.230]),
        ]
    )
    data = datasets.ImageFolder(str(folder / "train"), transform)
    batches = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    return lambda _epoch: (images for images, _ in batches)


def orch(pipeline: str, folder: Path, home: Path) -> Epoch:
    """Return orch's, over a data set that has been admitted; threads or processes are chosen in the first epoch."""
    fields = {"data": str(folder), "batch_size": BATCH_SIZE, "loader_workers": WORKERS, "pipeline": pipeline}
    spec, settings = specs.parse(fields), config.Settings(home=home)
    info = supply.ensure_data(spec, expected_hash=None, settings=settings, report=lambda _: None)
    batches = loader.Loader(info, spec, settings=settings)

    def epoch(number: int) -> Iterator[torch.Tensor]:
        if number == 0:
            batches.choose(number)
        yield from (images for images, _ in batches.train(number))

    return epoch


def main() -> None:
    """Time the epochs of a side."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epochs")
    parser.add_argument("side", choices=["notebook", "compat", "fast"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("epochs", type=int)
    given = parser.parse_args()
    epoch = notebook(given.folder) if given.side == "notebook" else orch(given.side, given.folder, given.home)
    taken = []
    for number in range(given.epochs):
        start = time.perf_counter()
        for _images in epoch(number):
            pass
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
