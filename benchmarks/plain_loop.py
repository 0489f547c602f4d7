"""The plain loop as a script: one optimizer step on a folder of pictures, as one would write it in a notebook.

`python -m benchmarks.plain_loop FOLDER BATCH_SIZE` prints the monotonic time at the end of the step, in seconds.
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from worker.models import densenet


def main(folder: Path, batch_size: int) -> None:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.490, 0.449, 0.411), (0.231, 0.221, 0.230)),
        ]
    )
    data = datasets.ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)
    model = densenet.DenseNet(growth_rate=4, blocks=(1, 1), num_classes=len(data.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images, targets = next(iter(loader))
    loss = nn.functional.cross_entropy(model(images), targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    print(time.monotonic())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
