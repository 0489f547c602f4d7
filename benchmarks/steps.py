"""Training steps on pictures of noise: `python -m benchmarks.steps SIDE …` prints the seconds of each as a JSON list.

The first step is left out: it makes the optimizer's state and touches its memory for the first time.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from benchmarks import place
from orchestrator.core import networks, specs
from worker.models import densenet
from worker.training import kernels, trainer

CLASSES = ("a", "b")

#: Learns from a batch.
Step = Callable[[torch.Tensor, torch.Tensor], None]


def orch(given: argparse.Namespace) -> Step:
    """Return the engine's step."""
    spec = specs.JobSpec(
        network=given.network, image_size=given.size, batch_size=given.batch, memory=given.memory, epochs=1
    )
    device = torch.device("cpu")
    learner = trainer.Trainer(spec, data_hash="", classes=CLASSES, device=device, steps_per_epoch=1000)
    learner.use(kernels.Kernels(layout=given.layout, precision=given.precision))
    if given.compile:
        said = learner.compile(place.KEPT / "compiled")
        if not learner.kernels.compiled:
            raise RuntimeError(said)
    learner.model.train()
    return learner.train_step


def plain(model: nn.Module) -> Step:
    """Return the step of the plain loop: the notebook's."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-4)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        loss.item()

    return step


def timm() -> Step:
    """Return the step of timm's training script for its densenet121, in channels_last."""
    timm_, optim = importlib.import_module("timm"), importlib.import_module("timm.optim")  # of the extra `bench`
    model = timm_.create_model("densenet121", num_classes=len(CLASSES)).to(memory_format=torch.channels_last).train()
    optimizer = optim.create_optimizer_v2(model, opt="adam", lr=1e-4)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()

    return step


SIDES: dict[str, Callable[[argparse.Namespace], Step]] = {
    "orch": orch,
    "notebook": lambda given: plain(densenet.DenseNet(num_classes=len(CLASSES), **networks.NETWORKS[given.network])),
    "torchvision": lambda _: plain(torchvision.models.densenet121(num_classes=len(CLASSES))),
    "torchvision-efficient": lambda _: plain(
        torchvision.models.densenet121(num_classes=len(CLASSES), memory_efficient=True)
    ),
    "timm": lambda _: timm(),
}


def main() -> None:
    """Make the steps of one side."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--network", default="densenet121")
    parser.add_argument("--memory", default="plain")
    parser.add_argument("--layout", default="contiguous")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    step = SIDES[given.side](given)
    images, targets = torch.randn(given.batch, 3, given.size, given.size), torch.arange(given.batch) % len(CLASSES)
    step(images, targets)
    taken = []
    for _ in range(given.steps):
        start = time.perf_counter()
        step(images, targets)
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
