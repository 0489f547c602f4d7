import multiprocessing
import os
import re
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import errors
from orchestrator.core import states
from tests.unit.worker.training import support
from worker import protocol
from worker import stage as worker_stage
from worker.data import cache, loader
from worker.models import zoo
from worker.training import checkpoint, report, stage, start, trainer


@pytest.fixture
def trained(data: protocol.DatasetInfo, root: Path) -> support.Follower:
    """Four epochs; the best is not the last."""
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=4, seed=1)), follower)
    told = [message.checkpoint for message in follower.of(protocol.CheckpointWritten)]
    assert not told[-1].best
    return follower


def evaluate(
    data: protocol.DatasetInfo, root: Path, earlier: support.Follower, **fields: Any
) -> tuple[support.Follower, protocol.Ended]:
    follower = support.Follower()
    told = support.assignment(root, support.spec(epochs=4, seed=1), attempt=2, earlier=(earlier,), **fields)
    return follower, stage.measure(data, told, follower)


def test_every_attempt_says_what_it_trains_with(data: protocol.DatasetInfo, root: Path) -> None:
    first = support.Follower(stop=lambda follower: bool(follower.steps))
    stage.train(data, support.assignment(root, support.spec(seed=7)), first)
    second = support.Follower()
    stage.train(data, support.assignment(root, support.spec(seed=7), attempt=2, earlier=(first,)), second)
    for follower in (first, second):
        (told,) = follower.of(protocol.Environment)
        assert (told.seed, told.threads, told.device, told.layout, told.precision) == (
            7,
            1,
            "cpu",
            "contiguous",
            "fp32",
        )
        assert told.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
        assert set(told.versions) >= {"orch", "python", "torchvision"}
        assert follower.messages.index(told) < follower.messages.index(follower.of(protocol.Steps)[0])


def best(follower: support.Follower) -> protocol.CheckpointInfo:
    told = [message.checkpoint for message in follower.of(protocol.CheckpointWritten)]
    return [info for info in told if info.best][-1]


def test_evaluation_measures_the_best_checkpoint_as_the_training_did(
    data: protocol.DatasetInfo, root: Path, trained: support.Follower
) -> None:
    follower, ended = evaluate(data, root, trained)
    (told,) = follower.of(protocol.Evaluated)
    assert (told.checkpoint_step, told.checkpoint_sha256) == (best(trained).step, best(trained).sha256)
    assert ended == protocol.Ended(how="done", last_step=best(trained).step)
    row = next(row for row in trained.rows if row["epoch"] == best(trained).epoch and row["split"] == "val")
    assert (told.loss, told.accuracy, told.images) == (row["loss"], row["accuracy"], row["images"])


def test_confusion_counts_truth_by_rows(data: protocol.DatasetInfo, root: Path, trained: support.Follower) -> None:
    follower, _ = evaluate(data, root, trained)
    (told,) = follower.of(protocol.Evaluated)
    recipe = support.spec(epochs=4, seed=1)
    network = zoo.build(recipe, 2)
    info = best(trained)
    saved = checkpoint.read(root / info.path, size=info.bytes, sha256=info.sha256)
    network.load_state_dict(saved.part("model"))
    network.eval()
    wanted = [[0, 0], [0, 0]]
    pictures = loader.SeededImageFolder(data, recipe, "val")
    for index in range(len(pictures)):
        pixels, truth = pictures[0, index]
        wanted[truth][int(network(pixels[None]).argmax())] += 1
    assert [list(row) for row in told.confusion] == wanted
    assert told.recall == tuple(wanted[label][label] / sum(wanted[label]) for label in (0, 1))
    assert told.classes == ("cats", "dogs")


def test_a_damaged_best_is_noted_and_the_newest_measured(
    data: protocol.DatasetInfo, root: Path, trained: support.Follower
) -> None:
    damaged = [message.checkpoint for message in trained.of(protocol.CheckpointWritten) if message.checkpoint.best]
    for info in damaged:
        (root / info.path).write_bytes(b"")
    follower, ended = evaluate(data, root, trained)
    assert len(follower.of(protocol.Note)) == len(damaged)
    assert ended.last_step == trained.of(protocol.CheckpointWritten)[-1].checkpoint.step


def test_without_a_checkpoint_there_is_nothing_to_evaluate(data: protocol.DatasetInfo, root: Path) -> None:
    with pytest.raises(errors.StageFailed, match="nothing to evaluate") as failed:
        evaluate(data, root, support.Follower())
    assert failed.value.reason == states.Reason.NO_VALID_CHECKPOINT


def test_evaluation_stops_when_told(data: protocol.DatasetInfo, root: Path, trained: support.Follower) -> None:
    follower = support.Follower(support.stop_at(2))
    told = support.assignment(root, support.spec(epochs=4, seed=1), earlier=(trained,))
    assert stage.measure(data, told, follower).how == "stopped"
    assert not follower.of(protocol.Evaluated)


def test_a_batch_larger_than_the_training_split_is_the_users_error(data: protocol.DatasetInfo, root: Path) -> None:
    with pytest.raises(
        errors.StageFailed, match="batch of 11 is larger than the training split, which has 10"
    ) as failed:
        stage.train(data, support.assignment(root, support.spec(batch_size=11)), support.Follower())
    assert failed.value.reason == states.Reason.USER_ERROR
    assert failed.value.hint == "Use --batch-size 10 or smaller."
    with pytest.raises(errors.StageFailed, match="step of 3 batches of 4 is larger") as failed:
        stage.train(data, support.assignment(root, support.spec(accumulate=3)), support.Follower())
    assert failed.value.hint == "Use --batch-size 3 or smaller."
    stage.train(data, support.assignment(root, support.spec(batch_size=10, epochs=1)), support.Follower())


def test_as_many_classes_as_the_data_has(tmp_path: Path, root: Path) -> None:
    three = support.dataset(tmp_path / "three", train=2, val=1, classes=("a", "b", "c"))
    follower = support.Follower()
    stage.train(three, support.assignment(root, support.spec(epochs=1)), follower)
    assert follower.last(root)[1]["model.linear.weight"].shape[0] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_cuda_does_not_see_is_a_gpu_error(data: protocol.DatasetInfo, root: Path) -> None:
    with pytest.raises(errors.StageFailed, match="GPU-1 cannot be used") as failed:
        stage.train(data, support.assignment(root, support.spec(), devices=("GPU-1",)), support.Follower())
    assert failed.value.reason == states.Reason.GPU_ERROR


@pytest.mark.parametrize(("wanted", "given"), [(2, 1), (1, 2), (2, 2)])
def test_a_job_for_several_devices_is_refused(data: protocol.DatasetInfo, root: Path, wanted: int, given: int) -> None:
    assignment = support.assignment(root, support.spec(gpus=wanted), devices=(protocol.CPU,) * given)
    with pytest.raises(errors.StageFailed, match=f"wants {wanted} devices together") as failed:
        stage.train(data, assignment, support.Follower())
    assert failed.value.reason == states.Reason.USER_ERROR


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), states.Reason.OOM),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), states.Reason.GPU_ERROR),
    ],
)
def test_torchs_errors_have_their_reason(raised: Exception, reason: states.Reason) -> None:
    failed = worker_stage.failure(raised)
    assert failed.reason is reason
    assert failed.hint


def test_real_lack_of_memory_on_the_host_is_oom(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.Trainer, "train_step", lambda *_, **__: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(RuntimeError) as raised:
        stage.train(data, support.assignment(root, support.spec()), support.Follower())
    failed = worker_stage.failure(raised.value)
    assert failed.reason is states.Reason.OOM
    assert failed.error.startswith("Memory ran out.")
    assert failed.hint == "Try a smaller --batch-size or --image-size."


def test_the_threads_of_the_first_step_stay_the_jobs(data: protocol.DatasetInfo, root: Path) -> None:
    first, second = support.Follower(support.stop_at(3)), support.Follower()
    stage.train(data, support.assignment(root, support.spec(), threads=1), first)
    torch.set_num_threads(2)
    stage.train(data, support.assignment(root, support.spec(), attempt=2, earlier=(first,), threads=2), second)
    assert torch.get_num_threads() == 1
    assert not second.of(protocol.Note)


def test_a_host_with_fewer_cores_says_that_bits_may_differ(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = support.Follower(support.stop_at(3)), support.Follower()
    stage.train(data, support.assignment(root, support.spec(), threads=2), first)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    stage.train(data, support.assignment(root, support.spec(), attempt=2, earlier=(first,), threads=1), second)
    (note,) = second.of(protocol.Note)
    assert note.kind == "numerics_changed"
    assert "threads: 1, before 2" in note.detail


def follow(connection: Connection, messages: list[Any], stop_after: type | None = None) -> None:
    while not messages or not isinstance(messages[-1], protocol.Ended | protocol.Failed):
        messages.append(protocol.heard(connection.recv_bytes()))
        if stop_after is not None and isinstance(messages[-1], stop_after):
            protocol.send(connection, protocol.Stop())


def run(main: Any, told: protocol.Assignment, stop_after: type | None = None) -> tuple[int, list[Any]]:
    """Run a stage's entry point in this thread over a real pipe; return its exit code and messages."""
    ours, theirs = multiprocessing.Pipe()
    messages: list[Any] = []
    with ours:
        listener = threading.Thread(target=follow, args=(ours, messages, stop_after), daemon=True)
        listener.start()
        code = main(told, theirs)
        listener.join(timeout=60)
        assert not listener.is_alive()
    return code, messages


def test_both_stages_run_over_a_pipe_from_a_folder_of_pictures(data: protocol.DatasetInfo, root: Path) -> None:
    recipe = support.spec(data=data.path, epochs=2)
    code, messages = run(stage.main_train, support.assignment(root, recipe))
    assert code == protocol.EXIT_DONE
    assert messages[-1] == protocol.Ended(how="done", last_step=6)
    told = tuple(m.checkpoint for m in reversed(messages) if isinstance(m, protocol.CheckpointWritten))
    code, messages = run(stage.main_evaluate, support.assignment(root, recipe, attempt=2, checkpoints=told))
    assert code == protocol.EXIT_DONE
    assert [m.images for m in messages if isinstance(m, protocol.Evaluated)] == [6]


def test_a_stop_over_the_pipe_ends_with_a_checkpoint_and_75(data: protocol.DatasetInfo, root: Path) -> None:
    recipe = support.spec(data=data.path, epochs=1000)
    code, messages = run(stage.main_train, support.assignment(root, recipe), stop_after=protocol.Steps)
    assert code == protocol.EXIT_STOPPED
    ended = messages[-1]
    assert isinstance(ended, protocol.Ended)
    last = [m.checkpoint for m in messages if isinstance(m, protocol.CheckpointWritten)][-1]
    assert (ended.how, ended.last_step) == ("stopped", last.step)


@pytest.mark.parametrize(
    ("main", "waits_for"), [(stage.main_train, "data"), (stage.main_evaluate, "data"), (stage.main_train, "weights")]
)
def test_a_stop_is_heard_while_what_it_waits_for_does_not_move(
    main: Any, waits_for: str, data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, codes = threading.Event(), list[int]()

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    def silent(*_args: Any, **_named: Any) -> Any:
        protocol.send(ours, protocol.Stop())
        left.wait(60)
        raise report.Stopped

    monkeypatch.setattr(worker_stage, "_STOP_GRACE", 0.0)
    monkeypatch.setattr(os, "_exit", leave)
    if waits_for == "data":
        monkeypatch.setattr(cache.Cache, "find", silent)
    else:
        monkeypatch.setattr(start, "load", silent)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        main(support.assignment(root, support.spec(data=data.path)), theirs)
        assert codes == [protocol.EXIT_STOPPED]
        said = [protocol.heard(ours.recv_bytes()) for _ in iter(ours.poll, False)]
    assert said[-1] == protocol.Ended(how="stopped")


def test_a_failure_is_told_over_the_pipe(data: protocol.DatasetInfo, root: Path) -> None:
    recipe = support.spec(data=data.path, batch_size=64)
    code, messages = run(stage.main_train, support.assignment(root, recipe))
    assert code == protocol.EXIT_FAILED
    assert isinstance(messages[-1], protocol.Failed)
    assert messages[-1].reason == states.Reason.USER_ERROR


@pytest.mark.timeout(300)  # it imports torch and makes a first step
def test_importing_the_stage_starts_no_thread_and_touches_no_gpu() -> None:
    code = (
        "import os, sys\n"
        "import worker.training.stage, torch\n"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())\n"
        "before = set(sys.modules)\n"
        "from worker.models import zoo\n"
        "from worker.training import optim\n"
        "from orchestrator.core import specs\n"
        "spec = specs.JobSpec(network='densenet_tiny')\n"
        "network = zoo.build(spec, 2)\n"
        "optimizer = optim.build(spec, network.parameters())\n"
        "network(torch.rand(2, 3, 8, 8)).sum().backward()\n"
        "optimizer.step()\n"
        "print(sorted(name for name in set(sys.modules) - before if name.split('.')[0] == 'torch'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
    )
    threads, late_imports = done.stdout.splitlines()
    assert threads == "1 False"
    assert re.fullmatch(r"\[\]", late_imports), "the fork server should have imported them"
