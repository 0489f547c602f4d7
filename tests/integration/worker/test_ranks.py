"""Trainings of several ranks, in real processes of the fork server: the same numbers as one, and one fate."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
import torch

from orchestrator import errors
from orchestrator.core import specs, states
from tests.support import counted, impatient, waiting
from tests.unit.worker.training import support
from worker import launcher, protocol
from worker.training import stage

TRAIN = protocol.ENTRY_POINTS[states.Stage.TRAIN]

#: Epochs of what is ended from outside: it must not end before, however long a test is held up.
LONG = 100_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> protocol.DatasetInfo:
    return support.dataset(tmp_path_factory.mktemp("data"))


class Training:
    """One training below a root, attempt after attempt."""

    def __init__(self, server: Path, root: Path, data: protocol.DatasetInfo, **fields: Any) -> None:
        self.root = root
        self.fields = {"data": data.path, "epochs": 2, "optimizer": "sgd", "lr": 0.1} | fields
        self.said: list[support.Follower] = []
        self._launcher = launcher.Launcher(server)

    @contextmanager
    def started(
        self, ranks: int, *, entry: str = TRAIN, plan: counted.Plan | None = None
    ) -> Iterator[launcher.Process]:
        """Start an attempt by so many ranks; its messages go to the last of `said`."""
        recipe: specs.JobSpec = support.spec(**self.fields, gpus=ranks)
        attempt = len(self.said) + 1
        told = support.assignment(
            self.root, recipe, attempt=attempt, earlier=tuple(self.said), devices=(protocol.CPU,) * ranks
        )
        log = Path(told.attempt_dir) / "log.txt"
        log.parent.mkdir(parents=True)
        if plan is not None:
            (log.parent / counted.PLAN).write_text(plan.model_dump_json(), encoding="utf-8")
            entry = counted.ENTRY
        self.said.append(support.Follower())
        with self._launcher.start(entry, told, log=log) as process:
            yield process

    def hear(self, process: launcher.Process, until: Callable[[support.Follower], object] = lambda _: None) -> None:
        """Take what it says, to its end or until something has been said."""
        said = self.said[-1]
        while not until(said):
            try:
                said.messages.append(protocol.heard(process.connection.recv_bytes()))
            except (EOFError, OSError):
                process.collect()
                return

    def run(self, ranks: int, *, plan: counted.Plan | None = None) -> support.Follower:
        """Do one attempt to its end, whichever that is."""
        with self.started(ranks, plan=plan) as process:
            self.hear(process)
        return self.said[-1]

    @property
    def losses(self) -> list[float]:
        """The loss of each step, as it was told last."""
        told = {step: value for said in self.said for step, name, value in said.steps if name == "loss"}
        return [told[step] for step in sorted(told)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what the last checkpoint keeps."""
        return self.said[-1].last(self.root)[1]


Start = Callable[..., Training]


@pytest.fixture
def start(fork_server: Path, tmp_path: Path, data: protocol.DatasetInfo) -> Start:
    def begun(name: str, **fields: Any) -> Training:
        return Training(fork_server, tmp_path / name, data, **fields)

    return begun


def saved(said: support.Follower) -> bool:
    return bool(said.of(protocol.CheckpointWritten))


def others(leader: int) -> list[psutil.Process]:
    """Return the ranks that follow."""
    return psutil.Process(leader).children()


def ended(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=60)[1]


def close(one: Training, other: Training) -> None:
    """Weights and optimizer are equal but for what adding up in another order does."""
    left, right = one.tensors(), other.tensors()
    assert left.keys() == right.keys()
    for name, value in left.items():
        if not name.startswith("rng."):
            torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5)


def near(values: list[float]) -> Any:
    """Return what is equal but for what adding up in another order does to floats of 24 bits, through a few steps."""
    return pytest.approx(values, rel=1e-5, abs=1e-6)


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated, averaged, clipped": {"accumulate": 2, "ema": 0.9, "clip_norm": 1.0, "batch_size": 4},
    "mixed, smoothed, in sizes": {
        "mixup": 0.4,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "image_size": 16,
        "progressive_sizes": (8,),
        "progressive_until": (0.5,),
    },
    "lean, channels last": {"memory": "lean", "layout": "channels_last", "stem": "imagenet", "image_size": 32},
}


@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_have_the_losses_and_weights_of_one(start: Start, name: str) -> None:
    one, two = start("one", **RECIPES[name]), start("two", **RECIPES[name])
    alone, together = one.run(1), two.run(2)
    assert [message.how for message in together.of(protocol.Ended)] == ["done"]
    assert two.losses == near(one.losses)
    assert [row["accuracy"] for row in together.rows] == [row["accuracy"] for row in alone.rows]
    assert [row["loss"] for row in together.rows] == near([row["loss"] for row in alone.rows])
    close(two, one)


def test_a_rank_without_a_picture_of_a_small_batch_changes_nothing(start: Start) -> None:
    fields = {"batch_size": 8, "epochs": 1}  # the second and last step has two pictures
    one, three = start("one", **fields), start("three", **fields)
    one.run(1)
    three.run(3)
    assert three.losses == near(one.losses)


def test_killed_and_resumed_at_the_same_number_of_ranks_it_ends_in_the_same_bits(start: Start) -> None:
    # Shares of two and three pictures: the ranks draw unlike.
    fields = {"epochs": 3, "batch_size": 5, "dropout": 0.2, "mixup": 0.4, "checkpoint_steps": 1}
    whole, broken = start("whole", **fields), start("broken", **fields)
    whole.run(2)
    first = broken.run(2, plan=counted.Plan(after_write=4))  # rank 0 dies, and takes the other along
    second = broken.run(2)
    assert not first.of(protocol.Ended)
    assert second.of(protocol.Resumed) == [protocol.Resumed(attempt=1, step=3)]
    assert broken.losses == whole.losses
    assert support.same(broken.tensors(), whole.tensors())


def test_it_goes_on_with_more_ranks_and_with_fewer(start: Start) -> None:
    fields = {"epochs": 3, "checkpoint_steps": 2, "momentum": 0.9}
    whole, changed = start("whole", **fields), start("changed", **fields)
    whole.run(1)
    changed.run(1, plan=counted.Plan(after_write=2))
    second = changed.run(2, plan=counted.Plan(after_write=3))
    third = changed.run(1)
    assert [said.of(protocol.Resumed)[0].step for said in (second, third)] == [2, 4]
    assert [note.detail.partition(":")[0] for note in second.of(protocol.Note)] == ["ranks"]
    assert third.of(protocol.Ended)[0].how == "done"
    assert changed.losses == near(whole.losses)
    close(changed, whole)


def test_a_rank_that_is_killed_ends_the_attempt_as_lost_and_the_next_goes_on(start: Start) -> None:
    training = start("killed", epochs=LONG, batch_size=6, checkpoint_steps=1)
    with training.started(3) as process:
        training.hear(process, saved)
        first, second = others(process.pid)
        second.kill()
        training.hear(process)
        assert ended([first, second])
        assert process.exit_code == protocol.EXIT_FAILED
    (failed,) = training.said[-1].of(protocol.Failed)
    assert (failed.reason, failed.error) == (states.Reason.LOST, "Rank 2 of 3 was ended by SIGKILL.")
    with training.started(2) as process:
        training.hear(process, saved)
    assert training.said[-1].of(protocol.Resumed)[0].step > 0


def test_a_rank_that_stands_still_ends_the_attempt_as_stalled(start: Start) -> None:
    training = start("stopped", epochs=LONG, checkpoint_steps=1)
    with training.started(2, entry=impatient.ENTRY) as process:
        training.hear(process, saved)
        (other,) = others(process.pid)
        other.send_signal(signal.SIGSTOP)
        training.hear(process)
        assert ended([other])
    (failed,) = training.said[-1].of(protocol.Failed)
    assert failed.reason is states.Reason.STALLED
    assert "did not come to the next step" in failed.error


def test_what_goes_wrong_in_a_rank_is_told_as_its_own(start: Start) -> None:
    training = start("broken", epochs=200)
    with training.started(2, entry=f"{impatient.__name__}:fail") as process:
        training.hear(process)
    (failed,) = training.said[-1].of(protocol.Failed)
    assert (failed.reason, failed.hint) == (states.Reason.OOM, "Try a smaller --batch-size or --image-size.")
    assert failed.error.startswith("Rank 1 of 2: Memory ran out.")


def test_what_a_rank_could_not_read_to_its_end_is_no_end_of_rank_0(start: Start) -> None:
    training = start("truncated", epochs=200)
    with training.started(2, entry=f"{impatient.__name__}:break_off") as process:
        training.hear(process)
    (failed,) = training.said[-1].of(protocol.Failed)
    assert failed.reason is states.Reason.INTERNAL
    assert failed.error.startswith("Rank 1 of 2: ")
    assert "a picture ends early" in failed.error


@pytest.mark.parametrize("which", ["leader", "supervisor"])
def test_no_rank_outlives_its_leader_or_the_supervisor(start: Start, which: str) -> None:
    training = start("orphans", epochs=LONG, batch_size=6, checkpoint_steps=1)
    with training.started(3) as process:
        training.hear(process, saved)
        leader = psutil.Process(process.pid)
        following = others(process.pid)
        for other in following:
            other.send_signal(signal.SIGSTOP)  # even one that cannot look
        if which == "leader":
            leader.kill()
        else:
            process.connection.close()
        assert ended([leader, *following])


def test_a_rank_that_looks_at_nothing_dies_with_its_leader_too(start: Start) -> None:
    training = start("asleep")
    with training.started(2, entry=f"{impatient.__name__}:sleep") as process:
        waiting.until((training.root / "testtest/attempt-1" / impatient.ASLEEP).exists)
        following = others(process.pid)
        psutil.Process(process.pid).kill()
        assert ended(following)


def test_all_ranks_stop_at_the_same_step(start: Start) -> None:
    training = start("stopped", epochs=LONG, checkpoint_steps=1)
    with training.started(2) as process:
        training.hear(process, saved)
        following = others(process.pid)
        os.killpg(process.pid, signal.SIGTERM)  # as a drain does that reaches the whole group
        training.hear(process)
        assert process.exit_code == protocol.EXIT_STOPPED
        assert ended(following)
    said = training.said[-1]
    (last,) = said.of(protocol.Ended)
    assert (last.how, last.last_step) == ("stopped", said.last(training.root)[0].step)
    log = (training.root / "testtest/attempt-1/log.txt").read_text(encoding="utf-8")
    assert all("Z  " in line for line in log.splitlines())  # it was no failure, nor a kill: the rest is the diary's


def test_a_head_that_learns_alone_has_the_features_of_one_rank(start: Start, tmp_path: Path) -> None:
    body = start("body", epochs=1)
    body.run(1)
    weights = {name.removeprefix("model."): value for name, value in body.tensors().items() if "model." in name}
    safetensors.torch.save_file(weights, tmp_path / "body.safetensors")
    fields = {"weights": str(tmp_path / "body.safetensors"), "head_epochs": 1, "mixup": 0.4, "epochs": 2}
    one, two = start("one", **fields), start("two", **fields)
    one.run(1)
    two.run(2)
    assert len(one.losses) == 6  # two epochs of three steps
    assert two.losses == near(one.losses)


def test_usage_is_that_of_all_ranks(start: Start) -> None:
    rows = [start(f"{ranks}", epochs=1).run(ranks).of(protocol.CheckpointWritten)[-1].metrics[0] for ranks in (1, 2)]
    one, two = (row.usage.memory for row in rows if row.usage is not None)
    assert two > 1.5 * one


def test_each_device_needs_a_rank(data: protocol.DatasetInfo, tmp_path: Path) -> None:
    told = support.assignment(tmp_path, support.spec(gpus=2), devices=(protocol.CPU,) * 2)
    with pytest.raises(errors.StageFailed, match="wants 2 devices together, and has 2 here, for 1"):
        stage.train(data, told, support.Follower())
