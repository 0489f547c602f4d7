import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import errors
from orchestrator.core import specs, states
from tests.support import durability
from tests.unit.worker.training import support
from worker import protocol
from worker.training import checkpoint, stage, trainer

SPEC = support.spec(epochs=2, checkpoint_steps=1)


@pytest.fixture
def saved() -> checkpoint.Snapshot:
    """The state of a training that has not begun."""
    return trainer.Trainer(
        SPEC, data_hash="d", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=3
    ).capture()


@pytest.fixture
def trained(data: protocol.DatasetInfo, root: Path) -> support.Follower:
    """Two epochs with a checkpoint at every step."""
    follower = support.Follower()
    stage.train(data, support.assignment(root, SPEC), follower)
    return follower


def infos(follower: support.Follower) -> list[protocol.CheckpointInfo]:
    return [message.checkpoint for message in follower.of(protocol.CheckpointWritten)]


def test_the_first_versions_checkpoint_is_still_gone_on_from(data: protocol.DatasetInfo, root: Path) -> None:
    """The file is of step 4 of `support.spec(epochs=2, seed=5, checkpoint_steps=4)`, one step into the second epoch."""
    content = Path(__file__).with_name("version1.safetensors").read_bytes()
    (root / "old.safetensors").write_bytes(content)
    old = protocol.CheckpointInfo(
        attempt=1,
        epoch=1,
        step=4,
        path="old.safetensors",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    follower = support.Follower()
    recipe = support.spec(epochs=2, seed=5, checkpoint_steps=4)
    ended = stage.train(data, support.assignment(root, recipe, attempt=2, checkpoints=(old,)), follower)
    assert ended == protocol.Ended(how="done", last_step=6)
    assert follower.of(protocol.Resumed) == [protocol.Resumed(attempt=1, step=4)]
    assert [step for step, _, _ in follower.steps] == [5, 6]


def test_a_spec_that_says_nothing_new_is_kept_as_version_1_kept_it(saved: checkpoint.Snapshot) -> None:
    assert json.loads(saved.state.model_dump_json())["spec"].keys() == specs.FIRST_FIELDS


def resume(
    data: protocol.DatasetInfo, root: Path, earlier: support.Follower, **fields: Any
) -> tuple[support.Follower, protocol.Ended]:
    follower = support.Follower()
    told = support.assignment(root, SPEC, attempt=2, earlier=(earlier,), **fields)
    return follower, stage.train(data, told, follower)


def test_size_and_digest_are_those_of_the_file(trained: support.Follower, root: Path) -> None:
    assert len(infos(trained)) == 6
    for info in infos(trained):
        content = (root / info.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (info.bytes, info.sha256)


def test_one_is_written_each_chosen_step_and_each_epochs_end_and_none_twice(trained: support.Follower) -> None:
    assert [(info.step, info.epoch) for info in infos(trained)] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)]
    assert infos(trained)[0].path == "testtest/attempt-1/checkpoints/step-0000001.safetensors"


def test_one_is_written_after_the_chosen_minutes(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    hurried = support.spec(epochs=1, checkpoint_minutes=1e-9)
    stage.train(data, support.assignment(root, hurried), follower)
    assert [info.step for info in infos(follower)] == [1, 2, 3]


def test_step_losses_are_told_before_the_checkpoint_behind_them(trained: support.Follower) -> None:
    told, behind = 0, []
    for message in trained.messages:
        if isinstance(message, protocol.Steps):
            told = message.values[-1][0]
        elif isinstance(message, protocol.CheckpointWritten):
            behind.append(told >= message.checkpoint.step)
    assert behind
    assert all(behind)


def test_only_a_strictly_better_epoch_is_best(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=6, seed=1)), follower)
    best = -1.0
    for info in infos(follower):
        assert info.accuracy is not None
        assert info.best == (info.accuracy > best)
        best = max(best, info.accuracy)
    assert best >= 0
    assert not all(info.best for info in infos(follower))


def test_nothing_but_whole_checkpoints_is_left(trained: support.Follower, root: Path) -> None:
    on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {path for path in on_disk if not path.startswith("data/")} == {info.path for info in infos(trained)}


def test_a_name_appears_only_after_its_bytes_are_on_disk(
    saved: checkpoint.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = durability.recorded(monkeypatch, tmp_path)
    path, _, _ = checkpoint.write(saved, tmp_path / "attempt" / "checkpoints")
    folder, temporary = "attempt/checkpoints", f"attempt/checkpoints/.{path.name}.tmp"
    assert happened == [
        "fsync attempt",
        f"fsync {temporary}",
        f"rename {temporary} {folder}/{path.name}",
        f"fsync {folder}",
    ]


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def _failing(name: str, code: int) -> Callable[[pytest.MonkeyPatch], None]:
    def arrange(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os if name == "fsync" else Path, name, fail)

    return arrange


@pytest.mark.parametrize(
    "arrange",
    [_no_room, _failing("fsync", errno.ENOSPC), _failing("fsync", errno.EIO), _failing("replace", errno.EDQUOT)],
    ids=["no room", "fsync: no space", "fsync: i/o error", "rename: quota"],
)
def test_a_failed_write_leaves_nothing_and_fails_disk_full(
    arrange: Callable[[pytest.MonkeyPatch], None],
    saved: checkpoint.Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange(monkeypatch)
    with pytest.raises(errors.StageFailed) as failed:
        checkpoint.write(saved, tmp_path / "attempt" / "checkpoints")
    assert failed.value.reason == states.Reason.DISK_FULL
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_failed_folder_sync_takes_the_file_back(
    saved: checkpoint.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "checkpoints":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(errors.StageFailed, match="could not be written"):
        checkpoint.write(saved, tmp_path / "attempt" / "checkpoints")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_during_training_is_told_of_no_checkpoint(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_DECODED_MAX_BYTES", "0")  # else the first look is for the room of decoded pictures
    empty, full = shutil.disk_usage("/"), shutil.disk_usage("/")._replace(free=1000)
    looks = iter([empty._replace(free=2**40)])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: next(looks, full))  # it fills up behind the first step
    follower = support.Follower()
    with pytest.raises(errors.StageFailed, match="checkpoint of step 1 could not be written"):
        stage.train(data, support.assignment(root, SPEC), follower)
    assert not infos(follower)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_anywhere_is_found(saved: checkpoint.Snapshot, tmp_path: Path, place: float, bit: int) -> None:
    path, size, sha256 = checkpoint.write(saved, tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * size)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(checkpoint.Damaged, match="sha256"):
        checkpoint.read(path, size=size, sha256=sha256)


def test_a_file_of_another_size_is_not_even_read(
    saved: checkpoint.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size, sha256 = checkpoint.write(saved, tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(checkpoint.Damaged, match=f"it has {size:,} bytes, not {size + 1:,}"):
        checkpoint.read(path, size=size + 1, sha256=sha256)


def test_what_is_written_is_what_is_read(saved: checkpoint.Snapshot, tmp_path: Path) -> None:
    path, size, sha256 = checkpoint.write(saved, tmp_path)
    found = checkpoint.read(path, size=size, sha256=sha256)
    assert found.state.model_dump(mode="json") == saved.state.model_dump(mode="json")
    assert support.same(found.tensors, saved.tensors)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _swap(path: Path) -> None:
    shutil.copy(path.with_name("step-0000001.safetensors"), path)


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _empty, _flip, _swap])
def test_a_damaged_newest_is_noted_and_the_one_before_it_used(
    data: protocol.DatasetInfo, root: Path, trained: support.Follower, damage: Callable[[Path], None]
) -> None:
    newest = infos(trained)[-1]
    damage(root / newest.path)
    follower, ended = resume(data, root, trained)
    assert ended == protocol.Ended(how="done", last_step=6)
    notes = follower.of(protocol.Note)
    assert [note.kind for note in notes] == ["checkpoint_damaged"]
    assert notes[0].detail.startswith(f"{newest.path}: ")
    assert follower.of(protocol.Resumed) == [protocol.Resumed(attempt=1, step=5)]
    assert follower.rows == trained.rows[2:]


def test_with_none_left_it_fails_and_never_starts_over(
    data: protocol.DatasetInfo, root: Path, trained: support.Follower
) -> None:
    for info in infos(trained):
        _flip(root / info.path)
    with pytest.raises(errors.StageFailed) as failed:
        resume(data, root, trained)
    assert failed.value.reason == states.Reason.NO_VALID_CHECKPOINT


@pytest.mark.parametrize("path", ["../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors", "link/x"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(checkpoint.Damaged, match="out of the artifact root"):
        checkpoint.below(root, path)


def test_a_checkpoint_outside_the_root_is_passed_over_though_its_digest_is_right(
    data: protocol.DatasetInfo, root: Path, trained: support.Follower, tmp_path_factory: pytest.TempPathFactory
) -> None:
    info = infos(trained)[-1]
    outside = tmp_path_factory.mktemp("outside") / "x.safetensors"
    shutil.copy(root / info.path, outside)
    planted = info.model_copy(update={"path": os.path.relpath(outside, root)})
    with pytest.raises(errors.StageFailed, match="None of the job's 1 checkpoints"):
        resume(data, root, trained, checkpoints=(planted,))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.",  # a pickle
        b"",
        (2).to_bytes(8, "little") + b"{}",  # safetensors without a state
        (1 << 60).to_bytes(8, "little"),
    ],
)
def test_what_is_no_checkpoint_is_damaged_whatever_its_digest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(checkpoint.Damaged, match="no checkpoint"):
        checkpoint.read(path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_another_formats_state_is_refused_as_another_versions(saved: checkpoint.Snapshot, tmp_path: Path) -> None:
    path, _, _ = checkpoint.write(saved, tmp_path)
    content = path.read_bytes().replace(b'\\"format\\":1', b'\\"format\\":2')
    path.write_bytes(content)
    with pytest.raises(checkpoint.Damaged, match="another version"):
        checkpoint.read(path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("other", [{"spec": support.spec(lr=0.5)}, {"data_hash": "e"}, {"classes": ("a", "c")}])
def test_another_trainings_checkpoint_does_not_fit(saved: checkpoint.Snapshot, other: dict[str, Any]) -> None:
    own: dict[str, Any] = {"spec": SPEC, "data_hash": "d", "classes": ("a", "b")}
    checkpoint.check_fit(saved.state, **own)
    with pytest.raises(checkpoint.Damaged, match="another recipe or other data"):
        checkpoint.check_fit(saved.state, **own | other)


def test_a_checkpoint_of_fewer_epochs_fits_and_one_of_more_does_not(saved: checkpoint.Snapshot) -> None:
    longer = SPEC.model_copy(update={"epochs": SPEC.epochs + 1})
    own: dict[str, Any] = {"data_hash": "d", "classes": ("a", "b")}
    checkpoint.check_fit(saved.state, spec=longer, **own)
    of_longer = saved.state.model_copy(update={"spec": longer})
    with pytest.raises(checkpoint.Damaged, match="another recipe"):
        checkpoint.check_fit(of_longer, spec=SPEC, **own)


def test_the_header_is_plain_json_with_one_entry(saved: checkpoint.Snapshot, tmp_path: Path) -> None:
    path, _, _ = checkpoint.write(saved, tmp_path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["orch"]
    assert {name.partition(".")[0] for name in header if name != "__metadata__"} == {"model", "rng"}


def test_the_same_state_gives_the_same_file(saved: checkpoint.Snapshot, tmp_path: Path) -> None:
    assert checkpoint.write(saved, tmp_path / "a")[1:] == checkpoint.write(saved, tmp_path / "b")[1:]
