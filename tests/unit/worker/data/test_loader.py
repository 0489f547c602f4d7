"""Batches: the same bit for bit for any number of workers, from any step on, and those of the notebook's recipe."""

import hashlib
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from orchestrator import config
from orchestrator.core import specs
from tests.support import pictures
from worker import protocol
from worker.data import crews, loader, makers, pixels, supply

Load = Callable[..., loader.Loader]


@pytest.fixture
def info(tmp_path: Path) -> protocol.DatasetInfo:
    """Return a set of 14 training pictures and 7 for validation."""
    folder = pictures.image_folder(tmp_path / "pets", splits={"train": 7, "validation": 3})
    (folder / "validation" / "cats" / "9.png").write_bytes(pictures.encoded(pictures.noise(9), "PNG"))
    spec = specs.parse({"data": str(folder)})
    return supply.ensure_data(spec, expected_hash=None, settings=config.Settings(home=tmp_path), report=lambda _: None)


def recipe(**values: Any) -> specs.JobSpec:
    return specs.parse({"network": "densenet_tiny", "image_size": 16, "batch_size": 4, "loader_workers": 0, **values})


def hashes(batches: Iterable[loader.Batch]) -> list[str]:
    return [
        hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest() for images, labels in batches
    ]


@pytest.fixture
def loaded(info: protocol.DatasetInfo) -> Iterator[Load]:
    """Makes loaders with a crew each, which end with the test: its processes would stay for the tests behind it."""
    with ExitStack() as ending:

        def make(kind: crews.Kind, workers: int) -> loader.Loader:
            batches = ending.enter_context(loader.Loader(info, recipe(loader_workers=workers)))
            batches._crew = crews.Crew(kind, workers, pin_memory=False)
            return batches

        yield make


@pytest.fixture
def with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiny sets be loaded by workers too."""
    monkeypatch.setattr(loader, "SMALL_SET_BYTES", 0)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_worker_count_changes_no_bit_of_any_batch(kind: crews.Kind, loaded: Load) -> None:
    seen = []
    for workers in (0, 1, 2):
        batches = loaded(kind, workers)
        seen.append([hashes(batches.train(1)), hashes(batches.train(2)), hashes(batches.validation())])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] != seen[0][1]


@pytest.mark.parametrize(("kind", "workers"), [("threads", 0), ("threads", 2), ("processes", 2)])
def test_an_epoch_can_be_entered_at_any_step(kind: crews.Kind, workers: int, loaded: Load) -> None:
    batches = loaded(kind, workers)
    whole = hashes(batches.train(3))
    for start in range(len(whole) + 1):
        assert hashes(batches.train(3, start_step=start)) == whole[start:]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_abandoned_epoch_does_not_reach_into_the_next(
    kind: crews.Kind, info: protocol.DatasetInfo, loaded: Load
) -> None:
    expected = hashes(loader.Loader(info, recipe()).train(2))
    batches = loaded(kind, 2)
    next(batches.train(1))
    assert hashes(batches.train(2)) == expected


def test_skipped_pictures_are_not_opened(info: protocol.DatasetInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = pixels.read

    def counting(path: Path) -> pixels.Pixels:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(pixels, "read", counting)
    list(loader.Loader(info, recipe()).train(1, start_step=2))
    assert len(opened) == 14 - 2 * 4


def test_seed_epoch_and_index_each_give_another_picture(info: protocol.DatasetInfo) -> None:
    def picture(seed: int, epoch: int, index: int) -> bytes:
        dataset = loader.SeededImageFolder(info, recipe(seed=seed), "train")
        return dataset[epoch, index][0].numpy().tobytes()

    assert picture(0, 1, 2) == picture(0, 1, 2)
    assert len({picture(0, 1, 2), picture(1, 1, 2), picture(0, 2, 2), picture(0, 1, 3)}) == 4


@pytest.mark.usefixtures("with_workers")
@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generator_alone(info: protocol.DatasetInfo, workers: int) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with loader.Loader(info, recipe(loader_workers=workers)) as batches:
        list(batches.train(1))
        list(batches.validation())
    assert torch.equal(torch.get_rng_state(), before)


def test_every_picture_is_seen_once_an_epoch_in_an_order_of_its_own(info: protocol.DatasetInfo) -> None:
    orders = [loader.epoch_order(14, seed=0, epoch=epoch) for epoch in (1, 2)]
    assert [sorted(order) for order in orders] == [list(range(14))] * 2
    assert orders[0] != orders[1]
    labels = torch.cat([labels for _, labels in loader.Loader(info, recipe()).train(1)])
    assert torch.bincount(labels).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (14, 4, [4, 4, 4, 2]),  # the last batch is kept
        (13, 4, [4, 4, 5]),  # a last one of one joins the one before: BatchNorm needs two
        (12, 4, [4, 4, 4]),
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),
    ],
)
def test_the_last_batch(images: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in loader._batches(range(images), batch_size)] == sizes
    assert loader.steps_per_epoch(images, batch_size) == len(sizes)


def test_validation_is_the_notebooks_over_a_stock_image_folder(info: protocol.DatasetInfo) -> None:
    spec = recipe()
    theirs = datasets.ImageFolder(
        f"{info.path}/validation",
        transforms.Compose(
            [
                transforms.Resize(18),  # int(16 * 256 / 224)
                transforms.CenterCrop(16),
                transforms.ToTensor(),
                transforms.Normalize([0.490, 0.449, 0.411], [0.231, 0.221, 0.230]),
            ]
        ),
    )
    ours = list(loader.Loader(info, spec).validation())
    stock = [torch.cat(parts) for parts in zip(*DataLoader(theirs, batch_size=4), strict=True)]
    assert torch.equal(torch.cat([images for images, _ in ours]), stock[0])
    assert torch.equal(torch.cat([labels for _, labels in ours]), stock[1])


def test_a_padded_crop_is_a_window_of_the_padded_picture(info: protocol.DatasetInfo) -> None:
    def picture(**fields: Any) -> torch.Tensor:
        return loader.SeededImageFolder(info, recipe(flip=False, **fields), "train")[1, 2][0]

    cropped = picture(crop_padding=4)
    whole = loader.SeededImageFolder(info, recipe(), "train")
    with Image.open(whole.root / whole.pictures[2].path) as file:
        pixels = transforms.Compose(
            [transforms.Resize(16), transforms.ToTensor(), transforms.Normalize(recipe().mean, recipe().std)]
        )(file.convert("RGB"))
    padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
    windows = padded.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    nearest = (windows - cropped).abs().flatten(1).max(dim=1).values.min()
    assert float(nearest) < 0.01  # the padding is the mean, rounded to a pixel's 255 values


def test_sizes_grow_by_their_share_of_the_epochs_and_validation_stays(info: protocol.DatasetInfo) -> None:
    spec = recipe(epochs=10, progressive_sizes=(8, 12), progressive_until=(0.3, 0.5))
    batches = loader.Loader(info, spec)
    sides = [next(batches.train(epoch))[0].shape[-1] for epoch in range(10)]
    assert sides == [8, 8, 8, 12, 12, 16, 16, 16, 16, 16]
    assert next(batches.validation())[0].shape[-1] == 16


def test_validation_keeps_the_share_of_the_side_that_is_asked(info: protocol.DatasetInfo) -> None:
    whole = loader.SeededImageFolder(info, recipe(val_crop=1), "val")[0, 0][0]
    half = loader.SeededImageFolder(info, recipe(val_crop=0.5, image_size=8), "val")[0, 0][0]
    assert torch.equal(half, whole[:, 4:12, 4:12])


def test_a_steps_pictures_are_those_of_its_batches(info: protocol.DatasetInfo) -> None:
    together = loader.Loader(info, recipe(batch_size=2, accumulate=3))
    apart = loader.Loader(info, recipe(batch_size=6))
    assert together.steps_per_epoch == apart.steps_per_epoch == 3
    for (left, _), (right, _) in zip(together.train(1), apart.train(1), strict=True):
        assert torch.equal(left, right)
    assert next(len(labels) for _, labels in together.validation()) == 2


def test_a_mirrored_picture_differs_from_the_same_one_unmirrored(info: protocol.DatasetInfo) -> None:
    def all_of(*, flip: bool) -> torch.Tensor:
        dataset = loader.SeededImageFolder(info, recipe(flip=flip, crop_scale=(1.0, 1.0)), "train")
        return torch.stack([dataset[1, index][0] for index in range(len(dataset))])

    mirrored, plain = all_of(flip=True), all_of(flip=False)
    same = (mirrored == plain).flatten(1).all(1)
    flipped = (mirrored == plain.flip(-1)).flatten(1).all(1)
    assert bool((same | flipped).all())
    assert 0 < int(flipped.sum()) < len(same)


def test_small_sets_need_no_workers(info: protocol.DatasetInfo) -> None:
    batches = loader.Loader(info, recipe(loader_workers=2))
    assert batches._crew.workers == 0
    assert batches.choose(1) is None


@pytest.mark.usefixtures("with_workers")
def test_randaugment_is_left_to_processes(info: protocol.DatasetInfo) -> None:
    batches = loader.Loader(info, recipe(loader_workers=2, randaugment=1))
    assert batches.choose(1) is None
    assert batches._crew.kind == "processes"


@pytest.mark.usefixtures("with_workers")
def test_choosing_changes_no_batch(info: protocol.DatasetInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_PIECE", 2)
    with loader.Loader(info, recipe(loader_workers=2)) as batches:
        said = batches.choose(1)
        assert hashes(batches.train(1)) == hashes(loader.Loader(info, recipe()).train(1))
    assert said is not None
    assert re.fullmatch(r"2 (threads|processes); pictures a second: [\d,]+ by threads, [\d,]+ by processes", said)


@pytest.mark.usefixtures("with_workers")
def test_processes_that_are_chosen_stay_for_the_epoch(
    info: protocol.DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "_WORTH", 0)
    monkeypatch.setattr(makers, "_running", weakref.WeakSet())  # without those of earlier tests that end just now
    with loader.Loader(info, recipe(loader_workers=2)) as batches:
        batches.choose(1)
        chosen = makers.processes()
        list(batches.train(1))
        assert set(chosen) == set(makers.processes())
        assert all(process.is_running() for process in chosen)
    assert chosen


@pytest.mark.usefixtures("with_workers")
def test_who_loads_is_measured_once_on_a_host(
    info: protocol.DatasetInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.Settings(home=tmp_path / "home", decoded_max_bytes=0)
    measured: list[str] = []

    def faster(crew: crews.Crew, *_: object) -> tuple[crews.Crew, str]:
        measured.append(crew.kind)
        return crews.Crew("processes", crew.workers, pin_memory=False), "measured"

    monkeypatch.setattr(crews, "faster", faster)
    first, second, other = (
        loader.Loader(info, recipe(loader_workers=workers), settings=settings) for workers in (2, 2, 3)
    )
    assert first.choose(1) == "measured"
    assert second.choose(1) == "2 processes, as was measured on this host before"
    assert second._crew.kind == "processes"
    assert other.choose(1) == "measured"
    assert len(measured) == 2


def chosen(rates: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, int]:
    """Return who is chosen at these rates, what is said, and the number of turns; the last rates go on."""
    turns: list[str] = []  # each takes so much of the clock that there is time for seven

    def rate(crew: crews.Crew, *_: object) -> float:
        turns.append(crew.kind)
        left = rates[crew.kind]
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(crews, "_rate", rate)
    monkeypatch.setattr(crews, "_MEASURED", 5)
    monkeypatch.setattr(crews, "time", SimpleNamespace(monotonic=lambda: len(turns)))
    crew, said = crews.faster(crews.Crew("threads", 3, pin_memory=False), loader.SeededImageFolder, [(0, 0)])  # type: ignore[arg-type]  # never opened
    assert crew.workers == 3
    return crew.kind, said, len(turns)


@pytest.mark.parametrize(
    ("threads", "processes", "kind"),
    [(100, 90, "threads"), (100, 109, "threads"), (100, 111, "processes"), (0, 0, "threads")],
)
def test_processes_have_to_be_clearly_faster(
    threads: int, processes: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said, turns = chosen({"threads": [threads], "processes": [processes]}, monkeypatch)
    assert found == kind
    assert said == f"3 {kind}; pictures a second: {threads} by threads, {processes} by processes"
    assert turns == (7 if threads else 3)


def test_plainly_faster_processes_are_chosen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, turns = chosen({"threads": [100], "processes": [40, 130]}, monkeypatch)  # the first one decodes
    assert (found, turns) == ("processes", 3)


def test_one_turn_beside_something_else_does_not_decide_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found, said, _ = chosen({"threads": [100, 80], "processes": [40, 60, 120]}, monkeypatch)
    assert found == "processes"
    assert said.endswith("100 by threads, 120 by processes")


@pytest.mark.parametrize(("held", "order"), [(1, "dadadadada"), (2, "ddaaddaada"), (9, "dddddaaaaa")])
def test_a_few_pictures_are_decoded_before_they_are_augmented(
    held: int, order: str, info: protocol.DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = loader.SeededImageFolder(info, recipe(), "train")
    keys = [(1, index) for index in (3, 1, 4, 0, 5)]
    expected = hashes([pictures.__getitems__(keys)])
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(pictures, name)

        def call(*of: Any) -> Any:
            done.append(name[1])
            return real(*of)

        return call

    for name in ("_decoded", "_augmented"):
        monkeypatch.setattr(pictures, name, noting(name))
    monkeypatch.setattr(loader, "_HELD_BYTES", held * 40 * 32 * 3)
    assert hashes([pictures.__getitems__(keys)]) == expected
    assert "".join(done) == order


def test_a_large_picture_is_gone_before_the_next_one_is_decoded(
    info: protocol.DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[weakref.ref[pixels.Pixels]] = []
    left: list[int] = []
    real = pixels.read

    def noting(path: Path) -> pixels.Pixels:
        left.append(sum(picture() is not None for picture in decoded))
        picture = real(path)
        decoded.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(pixels, "read", noting)
    monkeypatch.setattr(loader, "_HELD_BYTES", 1)
    loader.SeededImageFolder(info, recipe(), "train").__getitems__([(1, index) for index in range(4)])
    assert left == [0] * 4
