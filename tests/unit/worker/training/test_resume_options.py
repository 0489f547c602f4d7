"""With any option on, and with all of them, a training that stops and goes on ends as one that never stopped."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.options import ALL
from tests.unit.worker.training import support
from worker import protocol
from worker.data import loader
from worker.training import stage

#: Each option, alone or with what it needs.
EACH: list[dict[str, Any]] = [
    {"optimizer": "sgd", "nesterov": True},
    {"optimizer": "adamw", "weight_decay": 1e-2},
    {"optimizer": "adam", "weight_decay": 1e-2, "decay_norm": True},
    {"schedule": "step", "lr_steps": (0.4, 0.7)},
    {"schedule": "one-cycle"},
    {"schedule": "cosine", "warmup_epochs": 0.7},
    {"clip_norm": 0.5},
    {"batch_size": 2, "accumulate": 2},
    {"label_smoothing": 0.2},
    {"ema": 0.8},
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"randaugment": 2},
    {"crop_padding": 2},
    {"image_size": 12, "progressive_sizes": (8, 10), "progressive_until": (0.4, 0.7)},
    {"patience": 1, "epochs": 6},
    {"patience": 1, "patience_metric": "loss", "epochs": 6},
]


def run(data: protocol.DatasetInfo, root: Path, fields: dict[str, Any], stops: list[int]) -> list[support.Follower]:
    """Train in attempts that stop at these looks at the wish, then to the end; return their followers."""
    recipe = support.spec(**{"seed": 3} | fields)
    followers: list[support.Follower] = []
    for attempt, stop in enumerate([*stops, 10_000], start=1):
        follower = support.Follower(support.stop_at(stop))
        told = support.assignment(root, recipe, attempt=attempt, earlier=tuple(followers))
        ended = stage.train(data, told, follower)
        followers.append(follower)
        if ended.how == "done":
            break
    assert ended.how == "done"
    return followers


def same(whole: tuple[Path, support.Follower], root: Path, followers: list[support.Follower]) -> bool:
    """Whether what was told, but for times, and the last checkpoint are the same to the last bit."""
    whole_root, one = whole
    assert [step for follower in followers for step in follower.steps] == one.steps
    assert [row for follower in followers for row in follower.rows] == one.rows
    written = [follower for follower in followers if follower.of(protocol.CheckpointWritten)]
    return support.same(written[-1].last(root)[1], one.last(whole_root)[1])


@pytest.fixture(scope="module")
def whole(data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, support.Follower]:
    """The training with everything on that was never stopped."""
    root = tmp_path_factory.mktemp("whole")
    (follower,) = run(data, root, ALL, [])
    return root, follower


def test_all_at_once_stopped_here_and_there_ends_the_same(
    data: protocol.DatasetInfo, root: Path, whole: tuple[Path, support.Follower]
) -> None:
    for stop in range(2, whole[1].looks + 1, 5):
        assert same(whole, root / str(stop), run(data, root / str(stop), ALL, [stop])), f"stopped at look {stop}"


def test_all_at_once_ends_early_and_says_so(whole: tuple[Path, support.Follower]) -> None:
    (note,) = whole[1].of(protocol.Note)
    closed = len(whole[1].rows) // 2
    assert closed < ALL["epochs"]
    assert note.kind == "stopped_early"
    assert note.detail.startswith(f"after {closed} of 6 epochs: the validation accuracy has been no better")
    assert whole[1].messages[-1] == note


def test_a_training_that_has_ended_early_does_not_go_on(
    data: protocol.DatasetInfo, whole: tuple[Path, support.Follower]
) -> None:
    root, one = whole
    follower = support.Follower()
    ended = stage.train(
        data, support.assignment(root, support.spec(seed=3, **ALL), attempt=2, earlier=(one,)), follower
    )
    assert ended.how == "done"
    assert follower.steps == []


def test_loader_processes_change_no_bit_of_it(
    data: protocol.DatasetInfo, root: Path, whole: tuple[Path, support.Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "SMALL_SET_BYTES", 0)
    assert same(whole, root, run(data, root, ALL | {"loader_workers": 2}, []))


@pytest.mark.parametrize("fields", EACH, ids=str)
def test_each_alone_changes_the_training_and_resumes_to_the_same_bits(
    data: protocol.DatasetInfo, root: Path, fields: dict[str, Any]
) -> None:
    (plain,), (one,) = run(data, root / "plain", {}, []), run(data, root / "whole", fields, [])
    assert plain.steps != one.steps or fields.keys() & {"ema", "patience"}  # these change what is measured, or when
    assert same((root / "whole", one), root / "again", run(data, root / "again", fields, [3, 4, 6]))
