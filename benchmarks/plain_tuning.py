"""Plain full fine-tuning as a script: `python -m benchmarks.plain_tuning FOLDER WEIGHTS …`.

The loop that one would write: torchvision's folder and transforms, two loader processes, Adam at 1e-4, every weight
learns. Begins with the weights of a checkpoint, but for the classifier. Prints for each epoch the seconds since the
first batch was asked for, and the accuracy on the validation pictures, as a JSON list.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from orchestrator.core import networks, specs
from worker.models import densenet

_MEAN, _STD = (0.490, 0.449, 0.411), (0.231, 0.221, 0.230)
_PREFIX = "model."


def network(shape: networks.Shape, weights: Path, classes: int) -> nn.Module:
    """Return the network with the weights of a checkpoint, and a classifier that knows nothing."""
    model = densenet.DenseNet(num_classes=classes, **asdict(shape))
    stored = safetensors.torch.load_file(weights)
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items() if name.startswith(_PREFIX)}
    fitting = {name: tensor for name, tensor in own.items() if tensor.shape == model.state_dict()[name].shape}
    model.load_state_dict(fitting, strict=False)
    return model


def loaders(folder: Path, size: int, batch: int) -> tuple[DataLoader[Any], DataLoader[Any], int]:
    """Return the batches of both splits, and how many classes there are."""
    normalised = [transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    augmented = [transforms.RandomResizedCrop(size, scale=(0.35, 1.0)), transforms.RandomHorizontalFlip()]
    upright = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
    train = datasets.ImageFolder(str(folder / "train"), transforms.Compose([*augmented, *normalised]))
    held_out = next(path for name in ("validation", "val") if (path := folder / name).is_dir())
    val = datasets.ImageFolder(str(held_out), transforms.Compose([*upright, *normalised]))
    shuffled = DataLoader(train, batch_size=batch, shuffle=True, num_workers=2)
    return shuffled, DataLoader(val, batch_size=batch, num_workers=2), len(train.classes)


def accuracy(model: nn.Module, batches: DataLoader[Any]) -> float:
    """Return the share of pictures whose class the network tells."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, targets in batches:
            right += int((model(images).argmax(1) == targets).sum())
            total += len(targets)
    return right / total


def main() -> None:
    """Train, and print what each epoch came to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_tuning")
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--network", type=json.loads, required=True, help="its fields of a job, in JSON")
    for number in ("size", "batch", "epochs", "seed"):
        parser.add_argument(f"--{number}", type=int, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    train, val, classes = loaders(given.folder, given.size, given.batch)
    model = network(specs.parse(given.network).shape, given.weights, classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    start, found = time.monotonic(), []
    for _ in range(given.epochs):
        model.train()
        for images, targets in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
        right = accuracy(model, val)
        found.append((time.monotonic() - start, right))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
