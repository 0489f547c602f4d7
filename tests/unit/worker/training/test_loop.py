import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from orchestrator import errors
from orchestrator.core import states
from tests.unit.worker.training import support
from worker import protocol
from worker.models import zoo
from worker.training import report, stage, trainer


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("when", [{}, {"checkpoint_steps": 2}, {"checkpoint_minutes": 1e-3}])
def test_a_loss_that_is_not_finite_fails_with_step_and_rate_and_writes_nothing(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch, value: str, when: dict[str, Any]
) -> None:
    whole = trainer.Trainer.train_step

    def poisoned(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, **of: int) -> None:
        whole(self, images * float(value) if self.step == 1 else images, targets, **of)

    monkeypatch.setattr(trainer.Trainer, "train_step", poisoned)
    follower = support.Follower()
    with pytest.raises(errors.StageFailed, match="loss of step 2 is not finite") as failed:
        stage.train(data, support.assignment(root, support.spec(**when)), follower)
    assert failed.value.reason == states.Reason.DIVERGED
    assert failed.value.why == "The training diverged at a learning rate of 0.01."
    assert failed.value.hint == "Try a smaller --lr."
    assert [step for step, _, _ in follower.steps] == [1]
    good = {"step-0000001.safetensors"} if "checkpoint_minutes" in when else set()  # where the first step took long
    assert {path.name for path in root.rglob("*.safetensors")} <= good


def test_a_disk_without_room_for_one_checkpoint_ends_it_at_the_first_step(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam keeps two numbers for each weight: a checkpoint takes three times the network."""
    usage = shutil.disk_usage("/")._replace(free=16 * 2**20 + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    follower = support.Follower()
    task = support.assignment(root, support.spec(), attempt_dir=str(root))
    with pytest.raises(errors.StageFailed, match="no room for a checkpoint") as failed:
        stage.train(data, task, follower)
    assert failed.value.reason == states.Reason.DISK_FULL
    weights = sum(value.nbytes for value in zoo.build(task.spec, len(data.classes)).state_dict().values())
    needed = int(str(failed.value.why).split()[2].replace(",", ""))
    assert 2 * weights < needed <= 3 * weights + 10_000
    assert "16,778,216 bytes are free" in str(failed.value.why)
    assert follower.steps == []


def test_a_drain_writes_no_checkpoint_of_a_loss_that_is_not_finite(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.Trainer.train_step

    def poisoned(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, **of: int) -> None:
        whole(self, images * float("nan") if self.step == 2 else images, targets, **of)

    monkeypatch.setattr(trainer.Trainer, "train_step", poisoned)
    with pytest.raises(errors.StageFailed, match="loss of step 3 is not finite"):
        stage.train(data, support.assignment(root, support.spec()), support.Follower(support.stop_at(4)))
    assert not list(root.rglob("*.safetensors"))


def test_a_learning_rate_of_a_billion_diverges_and_keeps_the_checkpoints_before(
    data: protocol.DatasetInfo, root: Path
) -> None:
    recipe = support.spec(checkpoint_steps=1, epochs=100).model_copy(update={"lr": 1e9})  # submit takes 10 at most
    follower = support.Follower()
    with pytest.raises(errors.StageFailed, match="not finite") as failed:
        stage.train(data, support.assignment(root, recipe), follower)
    assert failed.value.reason == states.Reason.DIVERGED
    assert "1e+09" in str(failed.value.why)
    kept = list(root.rglob("*.safetensors"))
    assert kept
    for path in kept:
        assert all(tensor.isfinite().all() for tensor in safetensors.torch.load_file(path).values())


@pytest.mark.parametrize(("train", "val", "batch_size"), [(5, 2, 3), (3, 3, 5)])
def test_a_last_one_picture_is_no_trouble_in_either_split(
    tmp_path: Path, root: Path, train: int, val: int, batch_size: int
) -> None:
    data = support.dataset(tmp_path / "ones", train=train, val=val)
    assert {count % batch_size for count in data.counts.values()} == {1}
    follower = support.Follower()
    ended = stage.train(data, support.assignment(root, support.spec(batch_size=batch_size, epochs=2)), follower)
    assert ended.how == "done"
    assert [row["images"] for row in follower.rows] == [2 * train, 2 * val] * 2


def test_weights_that_are_not_finite_are_not_written_though_every_loss_was(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.Trainer.train_step

    def poisoned(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, **of: int) -> None:
        whole(self, images, targets, **of)
        if self.step == 2:
            next(self.model.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(trainer.Trainer, "train_step", poisoned)
    with pytest.raises(errors.StageFailed, match="not finite after step 2") as failed:
        stage.train(data, support.assignment(root, support.spec(checkpoint_steps=2)), support.Follower())
    assert failed.value.reason == states.Reason.DIVERGED
    assert not list(root.rglob("*.safetensors"))


def test_gradients_that_overflow_at_every_step_are_no_training(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.Trainer.train_step

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, float("inf"))

    def overflowing(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, **of: int) -> None:
        if self.step == 0:
            self.model.linear.weight.register_hook(overflow)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        whole(self, images, targets, **of)

    monkeypatch.setattr(trainer.Trainer, "train_step", overflowing)
    recipe = support.spec(precision="fp16", epochs=20)
    with pytest.raises(errors.StageFailed, match="overflow in fp16 at every step before step 42") as failed:
        stage.train(data, support.assignment(root, recipe), support.Follower())
    assert failed.value.reason == states.Reason.DIVERGED


def test_a_validation_loss_that_is_not_finite_fails_as_diverged(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.Trainer.train_step

    def poisoned(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, **of: int) -> None:
        whole(self, images, targets, **of)
        next(self.model.buffers()).fill_(float("nan"))

    monkeypatch.setattr(trainer.Trainer, "train_step", poisoned)
    with pytest.raises(errors.StageFailed, match="validation split is not finite") as failed:
        stage.train(data, support.assignment(root, support.spec()), support.Follower())
    assert failed.value.reason == states.Reason.DIVERGED
    assert not list(root.rglob("*.safetensors"))


def test_progress_begins_at_once_and_the_first_step_is_told_at_once(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=2)), follower)
    begin, first, *_ = follower.of(protocol.Progress)
    assert (begin.done, begin.total, begin.unit, begin.epoch, begin.epochs) == (0, 6, "steps", 1, 2)
    assert first.done == 1
    assert first.rate is not None
    assert len(follower.of(protocol.Steps)[0].values) == 1


def test_steps_come_in_batches_and_progress_twice_a_second_at_most(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    began = time.monotonic()
    stage.train(data, support.assignment(root, support.spec(batch_size=2, epochs=10)), follower)
    seconds = time.monotonic() - began
    assert len(follower.steps) == 50
    assert len(follower.of(protocol.Progress)) <= 2 + seconds / report.PROGRESS_EVERY
    assert len(follower.of(protocol.Steps)) <= 1 + seconds / report.STEPS_EVERY + 10  # one before each checkpoint


def test_a_step_of_many_batches_gives_signs_of_life(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take longer than the stall time, though no batch of it does; the pace that is told stays that of steps."""
    monkeypatch.setattr(report, "_SIGN_EVERY", 0.0)
    recipe, follower = support.spec(batch_size=2, accumulate=4, epochs=2), support.Follower()
    stage.train(data, support.assignment(root, recipe), follower)
    signs = [said for said in follower.of(protocol.Progress) if said.done == 0]
    assert len(signs) == 1 + 3  # at the beginning, and between the batches of the first step
    monkeypatch.setattr(report, "_SIGN_EVERY", 3600.0)
    silent = support.Follower()
    stage.train(data, support.assignment(root / "again", recipe), silent)
    assert silent.steps == follower.steps
