"""Checkpoints are written beside the training: of their moment, one at a time, and no failure is lost."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from orchestrator import errors
from orchestrator.core import states
from tests.unit.worker.training import support
from worker import protocol
from worker.training import checkpoint, loop, packing, saving, stage, trainer

CPU = torch.device("cpu")
#: Three steps; the first checkpoint is that of step 1.
SPEC = support.spec(epochs=1, checkpoint_steps=1, ema=0.9)


def train(
    data: protocol.DatasetInfo, root: Path, write: loop.Write, follower: support.Follower | None = None
) -> tuple[support.Follower, protocol.Ended]:
    follower = follower or support.Follower()
    told = support.assignment(root, SPEC)
    learner, batches = stage.prepared(data, told, follower)
    with batches:
        run = loop.Loop(learner, batches, follower, root=root, folder=root / "checkpoints", attempt=1, write=write).run
        return follower, run()


def numbers(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def test_a_file_has_the_bytes_that_safetensors_would_write(data: protocol.DatasetInfo, root: Path) -> None:
    seen = []

    def look(snapshot: checkpoint.Snapshot, folder: Path) -> tuple[Path, int, str]:
        metadata = {"orch": snapshot.state.model_dump_json()}
        seen.append(b"".join(snapshot.pieces()) == safetensors.torch.save(snapshot.tensors, metadata))
        return checkpoint.write(snapshot, folder)

    train(data, root, look)
    assert seen == [True] * 3


def test_the_training_goes_on_while_a_checkpoint_is_written_which_is_of_its_moment(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, root / "undisturbed", checkpoint.write)
    stepped, whole = threading.Event(), trainer.Trainer.train_step

    def step(self: trainer.Trainer, images: torch.Tensor, targets: torch.Tensor, *, of: int | None = None) -> None:
        whole(self, images, targets, of=of)
        if self.step == 2:
            stepped.set()

    def slow(snapshot: checkpoint.Snapshot, folder: Path) -> tuple[Path, int, str]:
        assert stepped.wait(60)
        return checkpoint.write(snapshot, folder)

    monkeypatch.setattr(trainer.Trainer, "train_step", step)
    follower, _ = train(data, root, slow)
    told = follower.of(protocol.CheckpointWritten)
    assert [message.checkpoint.step for message in told] == [1, 2, 3]
    for message in told:
        name = Path(message.checkpoint.path).name
        assert support.same(numbers(root / "checkpoints" / name), numbers(root / "undisturbed" / "checkpoints" / name))


def test_the_next_one_is_not_taken_before_the_last_is_written(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, whole = threading.Semaphore(0), trainer.Trainer.capture

    def capture(self: trainer.Trainer) -> checkpoint.Snapshot:
        taken.release()
        return whole(self)

    def slow(snapshot: checkpoint.Snapshot, folder: Path) -> tuple[Path, int, str]:
        assert taken.acquire(timeout=60)  # this one
        assert not taken.acquire(timeout=0.1)
        return checkpoint.write(snapshot, folder)

    monkeypatch.setattr(trainer.Trainer, "capture", capture)
    _, ended = train(data, root, slow)
    assert ended.last_step == 3


def test_a_stop_waits_for_the_last_one(data: protocol.DatasetInfo, root: Path) -> None:
    written = []

    def slow(snapshot: checkpoint.Snapshot, folder: Path) -> tuple[Path, int, str]:
        time.sleep(0.1)  # longer than the way to the end
        written.append(snapshot.state.step)
        return checkpoint.write(snapshot, folder)

    follower = support.Follower(lambda follower: bool(follower.steps))
    _, ended = train(data, root, slow, follower)
    assert ended == protocol.Ended(how="stopped", last_step=1)
    assert written == [1]
    assert [message.checkpoint.step for message in follower.of(protocol.CheckpointWritten)] == [1]


def test_a_failed_one_ends_the_training_at_its_next_step(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = errors.StageFailed("The disk is full.", reason=states.Reason.DISK_FULL)
    whole = saving.Writing.begin

    def begin(self: saving.Writing, write: object) -> None:
        whole(self, write)  # type: ignore[arg-type]  # as it comes
        assert self._under_way is not None
        self._under_way.exception()  # it has ended before the next step begins

    def fails(_snapshot: checkpoint.Snapshot, _folder: Path) -> tuple[Path, int, str]:
        raise said

    monkeypatch.setattr(saving.Writing, "begin", begin)
    follower = support.Follower()
    with pytest.raises(errors.StageFailed) as failed:
        train(data, root, fails, follower)
    assert failed.value is said
    assert [step for step, name, _ in follower.steps if name == "loss"] == [1]
    assert not follower.of(protocol.CheckpointWritten)


def test_the_earlier_failure_is_the_one_that_is_told() -> None:
    def fails() -> None:
        time.sleep(0.1)  # it is still at it when the training has failed
        raise OSError("the writing")

    def trains() -> None:
        with saving.Writing() as writing:
            writing.begin(fails)
            raise RuntimeError("the training, a step later")

    with pytest.raises(OSError, match="the writing"):
        trains()


def test_a_failure_is_raised_at_a_look_and_once() -> None:
    def fails() -> None:
        raise OSError("the writing")

    go = threading.Event()

    def waits() -> None:
        assert go.wait(60)

    with saving.Writing() as writing:
        writing.begin(waits)
        writing.look()
        go.set()
        writing.begin(fails)
        with pytest.raises(OSError, match="the writing"):
            writing.wait()
        writing.look()


def finite(held: packing.Held) -> bool:
    return all(map(packing.finite, held.pieces()))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_one_number_that_is_not_finite_is_found_anywhere(
    dtype: torch.dtype, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_PIECE", 8)  # one or a few numbers: in any piece
    room = packing.Room(CPU)
    tensors = {"a": torch.ones(5, dtype=dtype), "count": torch.ones((), dtype=torch.int64), "z": torch.zeros(2, 2)}
    assert finite(room.hold(tensors))
    for index in range(5):
        spoilt = torch.ones(5, dtype=dtype)
        spoilt[index] = float(value)
        assert not finite(room.hold(tensors | {"a": spoilt}))
    assert not finite(room.hold(tensors | {"z": torch.full((2, 2), float(value))}))


def test_the_largest_numbers_are_finite() -> None:
    most = {
        str(dtype): torch.full((3,), torch.finfo(dtype).max, dtype=dtype) for dtype in (torch.float64, torch.float32)
    }
    assert finite(packing.Room(CPU).hold(most))


def test_memory_is_used_again_and_made_anew_where_other_tensors_come() -> None:
    room = packing.Room(CPU)
    first = room.hold({"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.uint8)})
    again = room.hold({"a": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.uint8)})
    assert again.content.data_ptr() == first.content.data_ptr()
    assert torch.equal(first.tensors["a"], torch.ones(2, 3))
    last_channels = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    other = room.hold({"b": torch.zeros(1, dtype=torch.uint8), "a": last_channels})
    assert list(other.tensors) == ["b", "a"]
    assert torch.equal(other.tensors["a"], last_channels)
    assert other.tensors["a"].is_contiguous()


def large() -> dict[str, torch.Tensor]:
    """Return four tensors that NumPy copies, a large one of numbers that it does not know, and small ones."""
    return {
        "a": torch.randn(2**15),
        "b": torch.randn(64, 32, 3, 3),
        "half": torch.randn(2**16).to(torch.bfloat16),
        "last": torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last),
        "learnt": torch.nn.Parameter(torch.randn(3, 2**14)),
        "none": torch.zeros(0),
        "one": torch.ones(()),
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_large_tensors_are_copied_to_the_bit_by_as_many_threads_as_train(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, whole = threading.Barrier(threads), np.copyto
    copying: set[int] = set()

    def copy(place: np.ndarray, value: np.ndarray) -> None:
        at_once.wait(10)
        copying.add(threading.get_ident())
        whole(place, value)

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(np, "copyto", copy)
    tensors = large()
    before = {name: value.detach().clone() for name, value in tensors.items()}
    held = packing.Room(CPU).hold(tensors)
    for value in tensors.values():
        value.detach().zero_()
    assert support.same(held.tensors, before)
    assert len(copying) == threads


def test_no_thread_is_started_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(packing, "ThreadPoolExecutor", pytest.fail)
    tensors = {"a": torch.randn(3), "large": torch.randn(2**15)}
    assert support.same(packing.Room(CPU).hold(tensors).tensors, tensors)


def test_what_the_second_thread_fails_with_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = threading.Event()

    def copy(_place: np.ndarray, _value: np.ndarray) -> None:
        if threading.current_thread() is threading.main_thread():
            assert failing.wait(10)
        else:
            failing.set()
            raise MemoryError

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(np, "copyto", copy)
    with pytest.raises(MemoryError):
        packing.Room(CPU).hold(large())


def test_a_file_of_many_pieces_has_the_bytes_that_safetensors_would_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_PIECE", 2**12)
    held = packing.Room(CPU).hold(large() | {"seen": torch.tensor([1, 2]), "rng": torch.zeros(9, dtype=torch.uint8)})
    content = b"".join(piece.view(torch.uint8).numpy().tobytes() for piece in held.pieces())
    assert held.header({"orch": "{}"}) + content == safetensors.torch.save(held.tensors, {"orch": "{}"})
