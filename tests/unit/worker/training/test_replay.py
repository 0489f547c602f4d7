"""A part of a training done again: equal bits are told as such, and every single other bit is found."""

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from orchestrator import errors
from tests.unit.worker.training import support
from worker import answers, protocol
from worker.training import checkpoint, replay, stage, trainer


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))


class Trained:
    """A training of three epochs with a checkpoint at every second step; what it told, and its files."""

    def __init__(self, root: Path, data: protocol.DatasetInfo, **fields: Any) -> None:
        self.root = root
        self.recipe = support.spec(data=data.path, checkpoint_steps=2, **fields)
        self.follower = support.Follower()
        stage.with_data(stage.train, support.assignment(root, self.recipe), self.follower)
        self.points = {
            (info.step, info.epoch): info
            for info in (told.checkpoint for told in self.follower.of(protocol.CheckpointWritten))
        }
        self.losses = {step: value for step, name, value in self.follower.steps if name == "loss"}

    def again(
        self, begin: tuple[int, int] | None, until: tuple[int, int] | None, last_step: int, **fields: Any
    ) -> dict[str, Any]:
        """Return what doing it again came to, between checkpoints (step, epoch)."""
        assignment = support.assignment(
            self.root, self.recipe, checkpoints=() if begin is None else (self.points[begin],)
        )
        request = {
            "assignment": assignment,
            "last_step": last_step,
            "until": self.points[until] if until else None,
            "losses": self.losses,
            "ran_on": self.follower.of(protocol.Environment)[0],
        }
        said: list[answers.Answer] = []
        replay.replay(replay.Request(**request | fields), said.append)
        compared: dict[str, Any] = said[-1]["compared"]
        return compared


@pytest.fixture(scope="module")
def kept(data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCH_HOME", str(tmp_path_factory.mktemp("home")))
        return Trained(tmp_path_factory.mktemp("kept"), data, mixup=0.2, ema=0.9, schedule="cosine", dropout=0.1)


@pytest.fixture
def trained(kept: Trained, tmp_path: Path) -> Trained:
    """The same, with files that may be spoilt."""
    mine = Trained.__new__(Trained)
    vars(mine).update(vars(kept), root=tmp_path / "root", points=dict(kept.points), losses=dict(kept.losses))
    shutil.copytree(kept.root, mine.root)
    return mine


@pytest.mark.parametrize(
    ("begin", "until", "first", "last"),
    [
        pytest.param(None, (2, 0), 0, 2, id="from the start"),
        pytest.param((2, 0), (3, 1), 2, 3, id="to an epoch's end"),
        pytest.param((3, 1), (4, 1), 3, 4, id="into an epoch"),
        pytest.param((4, 1), (9, 3), 4, 9, id="over epochs to the very end"),
    ],
)
def test_the_same_bits_are_told(
    trained: Trained, begin: tuple[int, int] | None, until: tuple[int, int], first: int, last: int
) -> None:
    before = sorted(path for path in trained.root.rglob("*"))
    told = trained.again(begin, until, last)
    assert told["losses"] == last - first
    assert (told["first_step"], told["last_step"]) == (first, last)
    assert (told["loss"], told["tensors"], told["elsewhere"]) == (None, [], [])
    assert sorted(path for path in trained.root.rglob("*")) == before  # nothing is written


@pytest.mark.parametrize(("begin", "until"), [(None, (2, 0)), ((2, 0), (3, 1))], ids=str)
def test_what_was_trained_without_a_compiler_is_done_again_without(
    data: protocol.DatasetInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: tuple[int, int] | None,
    until: tuple[int, int],
) -> None:
    def fails(*_: object) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    trained = Trained(tmp_path / "root", data, compile=True)
    monkeypatch.setattr(trainer.Trainer, "compile", fails)
    told = trained.again(begin, until, until[0])
    assert (told["loss"], told["tensors"], told["elsewhere"]) == (None, [], [])


def test_so_many_steps_end_between_checkpoints(trained: Trained) -> None:
    told = trained.again((4, 1), None, 5)
    assert (told["losses"], told["last_step"], told["tensors"]) == (1, 5, None)


def test_another_loss_is_found_in_its_last_bit(trained: Trained) -> None:
    trained.losses[5] = math.nextafter(trained.losses[5], 1)
    told = trained.again((3, 1), (6, 2), 6)
    assert told["loss"]["step"] == 5
    assert told["loss"]["recorded"] != told["loss"]["replayed"]
    assert told["tensors"] == []


def _spoil(trained: Trained, at: tuple[int, int], change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Write a checkpoint anew with other tensors, whose digest is the one that is recorded."""
    info = trained.points[at]
    path = trained.root / info.path
    found = checkpoint.read(path, size=info.bytes, sha256=info.sha256)
    change(found.tensors)
    content = safetensors.torch.save(found.tensors, {"orch": found.state.model_dump_json()})
    path.write_bytes(content)
    digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    trained.points[at] = info.model_copy(update=digest)


def test_another_weight_is_found_in_its_last_bit(trained: Trained) -> None:
    name = "model.linear.bias"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = torch.nextafter(tensors[name], torch.ones(()))

    _spoil(trained, (6, 2), change)
    assert trained.again((4, 1), (6, 2), 6)["tensors"] == [name]


def test_a_zero_of_the_other_sign_is_another_bit() -> None:
    assert not replay._same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert replay._same(torch.tensor(math.nan), torch.tensor(math.nan))
    assert not replay._same(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))


def test_a_checkpoint_that_is_no_more_what_it_was_ends_it(trained: Trained) -> None:
    (trained.root / trained.points[6, 2].path).write_bytes(b"")
    with pytest.raises(errors.OrchError, match="cannot be used: it has 0 bytes"):
        trained.again((4, 1), (6, 2), 6)


def test_what_it_ran_on_otherwise_is_told(trained: Trained) -> None:
    before = trained.follower.of(protocol.Environment)[0]
    other = before.model_copy(
        update={"threads": 7, "code": "0123456789ab", "versions": before.versions | {"torch": "1.0"}}
    )
    told = trained.again(None, None, 1, ran_on=other)
    assert f"torch: {before.versions['torch']}, before 1.0" in told["elsewhere"]
    assert "threads: 1, before 7" in told["elsewhere"]
    assert "code: none, before 0123456789ab" in told["elsewhere"]


def test_a_choice_that_was_made_by_the_clock_is_kept(trained: Trained) -> None:
    """Of `auto` the layout that was chosen then counts, whatever is faster now."""
    ran_on = trained.follower.of(protocol.Environment)[0].model_copy(update={"layout": "channels_last"})
    assert trained.again(None, None, 1, ran_on=ran_on)["elsewhere"] == []
