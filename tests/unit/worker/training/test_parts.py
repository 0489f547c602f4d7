"""Trainings of a part of the network: what is frozen stays, features are computed once, and any stop changes no bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from orchestrator.core import specs
from tests.unit.worker.training import support
from tests.unit.worker.training.test_start import written
from worker import protocol
from worker.data import loader
from worker.models import densenet
from worker.training import parts, schedules, stage

EPOCHS = 3
#: The ways to train a part, and what of the network may move in them.
WAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "head": ({"train": "head"}, ("linear.",)),
    "last block": ({"train": "last-block"}, ("features.dense_block1.", "features.bn.", "linear.")),
    "all": ({}, ("",)),
    "head, then all": ({"head_epochs": 1, "head_lr": 0.05}, ("",)),
    "head, then all, compiled": ({"head_epochs": 1, "compile": True}, ("",)),
    "with everything else": (
        {"head_epochs": 1, "optimizer": "sgd", "schedule": "cosine", "mixup": 0.2, "ema": 0.9, "clip_norm": 1.0},
        ("",),
    ),
    "head, then the last block": (
        {"head_epochs": 2, "train": "last-block"},
        ("features.dense_block1.", "features.bn.", "linear."),
    ),
}


def spec(root: Path, **fields: Any) -> specs.JobSpec:
    return support.spec(**{"epochs": EPOCHS, "seed": 3, "weights": str(written(root)[0])} | fields)


def weights(follower: support.Follower, root: Path) -> dict[str, torch.Tensor]:
    tensors = follower.last(root)[1]
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_learn_stays_to_the_last_bit(data: protocol.DatasetInfo, root: Path, way: str) -> None:
    fields, moving = WAYS[way]
    _, before = written(root)
    follower = support.Follower()
    stage.train(data, support.assignment(root, spec(root, **fields)), follower)
    after = weights(follower, root)
    for name, value in before.items():
        if not name.startswith(moving):
            assert torch.equal(after[name], value), name  # BatchNorm's statistics and counters, too
    of_layers = [
        name for name in before if name.startswith(moving) and name.endswith("weight") and before[name].ndim > 1
    ]
    assert all("linear" in name or not torch.equal(after[name], before[name]) for name in of_layers)


@pytest.mark.parametrize("way", WAYS)
def test_stopped_anywhere_it_ends_as_if_never_stopped(data: protocol.DatasetInfo, root: Path, way: str) -> None:
    given = spec(root, checkpoint_steps=2, **WAYS[way][0])
    whole = support.Follower()
    stage.train(data, support.assignment(root, given, attempt=99), whole)
    for stop in range(2, whole.looks, 9):  # two or three in each pass over the pictures
        tried = root / str(stop)
        tried.mkdir()
        first, second = support.Follower(support.stop_at(stop)), support.Follower()
        stage.train(data, support.assignment(tried, given), first)
        stage.train(data, support.assignment(tried, given, attempt=2, earlier=(first,)), second)
        assert first.steps + second.steps == whole.steps, stop
        assert first.rows + second.rows == whole.rows, stop
        assert support.same(second.last(tried)[1], whole.last(root)[1]), stop


def test_the_head_learns_as_a_plain_loop_over_features_would(data: protocol.DatasetInfo, root: Path) -> None:
    given = spec(root, train="head", epochs=2)
    follower = support.Follower()
    stage.train(data, support.assignment(root, given), follower)
    torch.manual_seed(given.seed)
    network = densenet.DenseNet(growth_rate=4, blocks=(1, 1), num_classes=2)
    network.load_state_dict(
        {**network.state_dict(), **{k: v for k, v in written(root)[1].items() if "linear" not in k}}
    )
    network.eval()
    pictures = loader.SeededImageFolder(data, given, "train", augment=False)
    optimizer = torch.optim.Adam(network.linear.parameters(), lr=given.lr)
    losses = []
    for epoch in range(2):
        order = loader.epoch_order(len(pictures), seed=given.seed, epoch=epoch)
        for start in range(0, len(order), given.batch_size):
            items = [pictures[epoch, index] for index in order[start : start + given.batch_size]]
            with torch.no_grad():
                seen = network.embed(torch.stack([pixels for pixels, _ in items]))
            loss = functional.cross_entropy(network.linear(seen), torch.tensor([label for _, label in items]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            losses.append(loss.item())
    assert [value for _, _, value in follower.steps] == pytest.approx(
        losses, rel=1e-5
    )  # other batches: other last bits


def test_features_are_computed_once(data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embed = densenet.DenseNet.embed

    def counted(self: densenet.DenseNet, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(densenet.DenseNet, "embed", counted)
    stage.train(data, support.assignment(root, spec(root, train="head")), support.Follower())
    assert sum(seen) == 10 + 6  # every picture of both splits, whatever the epochs
    seen.clear()
    stage.train(data, support.assignment(root, spec(root, train="last-block"), attempt=2), support.Follower())
    assert sum(seen) == EPOCHS * (10 + 6)


def test_the_head_sees_no_augmentation(data: protocol.DatasetInfo, root: Path) -> None:
    followers = []
    for attempt, scale in enumerate([(0.08, 0.1), (0.9, 1.0)], start=1):
        followers.append(support.Follower())
        given = spec(root, train="head", crop_scale=scale)
        stage.train(data, support.assignment(root, given, attempt=attempt), followers[-1])
    assert followers[0].steps == followers[1].steps


def test_the_two_phases_have_rates_of_their_own(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    given = spec(root, head_epochs=1, head_lr=0.05, lr=0.002)
    stage.train(data, support.assignment(root, given), follower)
    assert [row["lr"] for row in follower.rows if row["split"] == "train"] == [0.05, 0.002, 0.002]


def test_the_schedule_is_about_the_epochs_behind_the_heads() -> None:
    spec_ = support.spec(weights="/w", epochs=5, head_epochs=2, head_lr=0.3, lr=0.1, schedule="cosine")
    rates = [schedules.rate(spec_, step=step, total=50) for step in range(50)]
    assert rates[:20] == [0.3] * 20
    alone = support.spec(epochs=3, lr=0.1, schedule="cosine")
    assert rates[20:] == [schedules.rate(alone, step=step, total=30) for step in range(30)]


def test_the_average_of_what_does_not_learn_is_what_it_is(data: protocol.DatasetInfo, root: Path) -> None:
    _, before = written(root)
    follower = support.Follower()
    stage.train(data, support.assignment(root, spec(root, train="head", ema=0.9)), follower)
    tensors = follower.last(root)[1]
    assert all(torch.equal(tensors[f"ema.{name}"], before[name]) for name in before if "linear" not in name)
    assert not torch.equal(tensors["ema.linear.weight"], tensors["model.linear.weight"])


def test_what_was_measured_on_features_is_what_the_whole_network_does(data: protocol.DatasetInfo, root: Path) -> None:
    trained, measured = support.Follower(), support.Follower()
    given = spec(root, train="head", epochs=1)
    stage.train(data, support.assignment(root, given), trained)
    stage.measure(data, support.assignment(root, given, attempt=2, earlier=(trained,)), measured)
    (told,) = measured.of(protocol.Evaluated)
    row = next(row for row in trained.rows if row["split"] == "val")
    assert (told.loss, told.accuracy) == (row["loss"], row["accuracy"])


def test_the_last_block_begins_behind_the_last_transition() -> None:
    network = densenet.DenseNet(growth_rate=2, blocks=(1, 1, 1), num_classes=2)
    learning = parts.let_learn(network, "last-block")
    names = {name for name, parameter in network.named_parameters() if any(parameter is each for each in learning)}
    assert {name.split(".")[1] if name.startswith("features") else name.split(".")[0] for name in names} == {
        "dense_block2",
        "bn",
        "linear",
    }
