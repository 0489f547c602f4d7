"""Checkpoints that were cut, flipped, swapped, planted or misplaced: each is found before anything of it is loaded."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from orchestrator import errors
from orchestrator.core import states
from tests.unit.worker.training import support
from worker import protocol
from worker.training import checkpoint, stage

CUTS, FLIPS, SWAPS = 20, 200, 10
SEED = 20_261_124

PICKLE = b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."

SPEC = support.spec(epochs=4, checkpoint_steps=1)


class Shelf:
    """The checkpoints of a training: `newest` is to be damaged, `earlier` is the one before it."""

    def __init__(self, root: Path, told: list[protocol.CheckpointInfo], others: list[Path]) -> None:
        self.root = root
        self.told = told
        self.earlier, self.newest = told[-2:]
        self.others = others  #: checkpoints of another job, and of another attempt of this one
        self.path = root / self.newest.path
        self.content = self.path.read_bytes()

    def restore(self) -> None:
        """Undo what was done to the newest."""
        if self.path.is_dir():
            self.path.rmdir()
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(self.content)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("shelf")
    data = support.dataset(root / "data")
    told, others = [], []
    for number, recipe in enumerate((SPEC, support.spec(epochs=4, checkpoint_steps=1, seed=9)), start=1):
        follower = support.Follower()
        folder = root / f"job-{number}/attempt-0001"
        stage.train(data, support.assignment(root, recipe, attempt_dir=str(folder)), follower)
        told.append([message.checkpoint for message in follower.of(protocol.CheckpointWritten)])
    others = [root / info.path for info in told[1]]
    return Shelf(root, told[0], others)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of what was parsed as tensors."""
    digests: list[str] = []
    load = safetensors.torch.load

    def noted(content: bytes) -> Any:
        digests.append(hashlib.sha256(content).hexdigest())
        return load(content)

    monkeypatch.setattr(safetensors.torch, "load", noted)
    return digests


def found(shelf: Shelf, loaded: list[str], newest: protocol.CheckpointInfo) -> str:
    """Check that `newest` is passed over unread and the one before it is used; return what is said of it."""
    said: list[str] = []
    loaded.clear()
    first = checkpoint.first_valid((newest, shelf.earlier), root=shelf.root, check=lambda _: None, damaged=said.append)
    assert first is not None
    assert first[0] == shelf.earlier
    assert loaded == [shelf.earlier.sha256]
    (line,) = said
    return line


def test_every_truncation_is_found(shelf: Shelf, loaded: list[str]) -> None:
    source = random.Random(SEED)  # noqa: S311 - a test's dice
    sizes = {0, 1, 7, 8, len(shelf.content) - 1} | {source.randrange(len(shelf.content)) for _ in range(CUTS)}
    for size in sorted(sizes)[:CUTS]:
        shelf.path.write_bytes(shelf.content[:size])
        assert f"it has {size:,} bytes" in found(shelf, loaded, shelf.newest)
    shelf.restore()


def test_every_flipped_bit_is_found(shelf: Shelf, loaded: list[str]) -> None:
    source = random.Random(SEED)  # noqa: S311 - a test's dice
    header = 8 + int.from_bytes(shelf.content[:8], "little")
    state = shelf.content.index(b'"orch"')
    parts = ((0, 8), (8, state), (state, header), (header, len(shelf.content)))
    for number in range(FLIPS):
        place, bit = source.randrange(*parts[number % len(parts)]), source.randrange(8)
        content = bytearray(shelf.content)
        content[place] ^= 1 << bit
        shelf.path.write_bytes(content)
        assert "its sha256 is another" in found(shelf, loaded, shelf.newest), f"bit {bit} of byte {place}"
    shelf.restore()


def test_every_swap_is_found(shelf: Shelf, loaded: list[str]) -> None:
    own = [shelf.root / info.path for info in shelf.told[:-1]]
    source = random.Random(SEED)  # noqa: S311 - a test's dice
    for other in source.sample([*own, *shelf.others], SWAPS):
        shutil.copy(other, shelf.path)
        assert shelf.newest.path in found(shelf, loaded, shelf.newest)
    shelf.restore()


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _pickle(path: Path) -> None:
    path.write_bytes(PICKLE)


def _padded_pickle(path: Path) -> None:
    path.write_bytes(PICKLE.ljust(path.stat().st_size, b"."))


@pytest.mark.parametrize("damage", [_missing, _folder, _pipe, _pickle, _padded_pickle])
def test_what_is_no_checkpoint_is_found(shelf: Shelf, loaded: list[str], damage: Callable[[Path], None]) -> None:
    damage(shelf.path)
    found(shelf, loaded, shelf.newest)
    shelf.restore()


@pytest.mark.parametrize("way", ["dots", "absolute", "link to the file", "link to its folder"])
def test_a_row_that_leads_out_of_the_root_is_found(shelf: Shelf, loaded: list[str], tmp_path: Path, way: str) -> None:
    """The file outside is whole and its digest is right: the place alone is wrong."""
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(shelf.content)
    (shelf.root / f"{tmp_path.name}-file").symlink_to(outside)
    (shelf.root / f"{tmp_path.name}-folder").symlink_to(tmp_path)
    path = {
        "dots": os.path.relpath(outside, shelf.root),
        "absolute": str(outside),
        "link to the file": f"{tmp_path.name}-file",
        "link to its folder": f"{tmp_path.name}-folder/outside.safetensors",
    }[way]
    planted = shelf.newest.model_copy(update={"path": path})
    assert "out of the artifact root" in found(shelf, loaded, planted)


def test_with_none_left_there_is_a_reason_and_no_start(shelf: Shelf) -> None:
    gone = [info.model_copy(update={"sha256": "0" * 64}) for info in shelf.told]
    with pytest.raises(errors.StageFailed) as failed:
        checkpoint.first_valid(gone, root=shelf.root, check=lambda _: None, damaged=lambda _: None)
    assert failed.value.reason == states.Reason.NO_VALID_CHECKPOINT
