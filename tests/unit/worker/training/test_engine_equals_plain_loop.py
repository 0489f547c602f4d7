"""The engine adds checkpoints, messages and metrics to a training, and changes not one bit of it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from orchestrator.core import networks, specs
from tests.unit.worker.models import notebook
from tests.unit.worker.training import support
from worker import protocol
from worker.data import loader
from worker.models import densenet
from worker.training import stage


def plain_loop(
    data: protocol.DatasetInfo, spec: specs.JobSpec
) -> tuple[nn.Module, list[float], list[dict[str, Any]], float]:
    """Train the notebook's network by the notebook's loop; return it, step losses, epoch rows, best accuracy."""
    torch.manual_seed(spec.seed)
    model = notebook.DenseNet(spec.blocks, spec.growth_rate, spec.reduction, len(data.classes))
    loss_func = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr)
    sets = {split: loader.SeededImageFolder(data, spec, split) for split in ("train", "val")}
    losses, rows, best = [], [], 0.0
    for epoch in range(spec.epochs):
        for split in ("train", "val"):
            model.train(split == "train")
            order = loader.epoch_order(len(sets["train"]), seed=spec.seed, epoch=epoch)
            if split == "val":
                order = list(range(len(sets["val"])))
            loss, successes = 0.0, torch.tensor(0)
            for start in range(0, len(order), spec.batch_size):
                items = [sets[split][epoch, index] for index in order[start : start + spec.batch_size]]
                imgs = torch.stack([pixels for pixels, _ in items])
                tgts = torch.tensor([label for _, label in items])
                optimizer.zero_grad()
                with torch.set_grad_enabled(split == "train"):
                    ops = model(imgs)
                    _, preds = torch.max(ops, 1)
                    loss_curr = loss_func(ops, tgts)
                    if split == "train":
                        loss_curr.backward()
                        optimizer.step()
                        losses.append(loss_curr.item())
                loss += loss_curr.item() * imgs.size(0)
                successes += torch.sum(preds == tgts.data)
            accuracy = (successes.double() / len(order)).item()
            rows.append({"epoch": epoch + 1, "split": split, "loss": loss / len(order), "accuracy": accuracy})
            if split == "val" and accuracy > best:
                best = accuracy
    return model, losses, rows, best


@pytest.mark.parametrize("threads", [1, 2])
def test_losses_metrics_and_weights_equal_the_plain_loops_to_the_last_bit(
    data: protocol.DatasetInfo, root: Path, threads: int
) -> None:
    spec = support.spec(epochs=2, seed=5, checkpoint_steps=2)
    torch.set_num_threads(threads)
    model, losses, rows, best = plain_loop(data, spec)
    follower = support.Follower()
    stage.train(data, support.assignment(root, spec, threads=threads), follower)
    assert follower.steps == [(step, "loss", loss) for step, loss in enumerate(losses, start=1)]
    assert [{key: row[key] for key in ("epoch", "split", "loss", "accuracy")} for row in follower.rows] == rows
    _, tensors = follower.last(root)
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    assert support.same(weights, dict(model.state_dict()))
    bests = [message.checkpoint for message in follower.of(protocol.CheckpointWritten) if message.checkpoint.best]
    assert bests[-1].accuracy == best


def test_rows_tell_images_time_and_learning_rate(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1)), follower)
    train, val = follower.of(protocol.CheckpointWritten)[-1].metrics
    assert (train.images, train.lr, val.images, val.lr) == (10, 1e-2, 6, None)
    assert train.seconds > 0
    assert val.seconds > 0


def test_another_seed_trains_otherwise(data: protocol.DatasetInfo, root: Path) -> None:
    first, second = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec(seed=1)), first)
    stage.train(data, support.assignment(root, support.spec(seed=2), attempt=2), second)
    assert first.steps != second.steps


def test_the_state_around_it_does_not_matter(data: protocol.DatasetInfo, root: Path) -> None:
    first, second = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec()), first)
    torch.manual_seed(123)
    random.seed(123)
    np.random.seed(123)  # noqa: NPY002 - the global generator is what is tested
    stage.train(data, support.assignment(root, support.spec(), attempt=2), second)
    assert first.steps == second.steps
    assert support.same(first.last(root)[1], second.last(root)[1])


def test_loader_processes_change_no_bit(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, helped = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=2)), alone)
    monkeypatch.setattr(loader, "SMALL_SET_BYTES", 0)
    told = support.assignment(root, support.spec(epochs=2, loader_workers=2), attempt=2)
    stage.train(data, told, helped)
    assert helped.steps == alone.steps
    assert helped.rows == alone.rows
    assert support.same(helped.last(root)[1], alone.last(root)[1])


@pytest.mark.parametrize("mode", ["balanced", "lean"])
def test_less_memory_changes_no_bit(
    data: protocol.DatasetInfo, root: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    use = densenet.DenseNet.use_memory

    def noted(network: densenet.DenseNet, mode: networks.Memory) -> None:
        used.append(mode)
        use(network, mode)

    monkeypatch.setattr(densenet.DenseNet, "use_memory", noted)
    plain, lean = support.Follower(), support.Follower()
    fields: dict[str, Any] = {"epochs": 1, "dropout": 0.2, "blocks": (2, 2)}
    stage.train(data, support.assignment(root, support.spec(**fields)), plain)
    stage.train(data, support.assignment(root, support.spec(**fields), attempt=2, memory=mode), lean)
    assert used == ["plain", "plain", mode]
    (note,) = lean.of(protocol.Note)
    assert (note.kind, note.detail.partition(",")[0]) == ("leaner_memory", f"{mode} in place of plain")
    assert lean.steps == plain.steps
    assert support.same(lean.last(root)[1], plain.last(root)[1])
