"""`orch data`: what the cache of this host holds, seen and kept by people."""

import json
from pathlib import Path

import pytest
from PIL import Image

from orchestrator import config, errors
from orchestrator.core import jobs, specs
from orchestrator.service import asking, datasets, dataviews
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.integration.cli.test_terminal import Screen, plain, screen
from tests.support import archives, asked, pictures

__all__ = ["screen"]


@pytest.fixture(autouse=True)
def _asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked.here(monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A set of which one validation picture is in the train split as well."""
    files = pictures.members(size=(12, 10))
    files["validation/cats/again.jpg"] = files["train/cats/0.jpg"]
    path = tmp_path / "pictures.zip"
    path.write_bytes(archives.zipped(files))
    return path


@pytest.fixture
def added(orch: Orch, archive: Path) -> dataviews.HeldPart:
    ran = orch("data", "add", str(archive), "--json")
    assert ran.code == 0, ran.err
    assert "1 of 7 validation pictures are in the train split too" in ran.err
    return dataviews.HeldPayload.model_validate_json(ran.out).dataset


def listed(orch: Orch) -> list[dataviews.HeldPart]:
    return list(dataviews.HeldsPayload.model_validate_json(orch("data", "list", "--json").out).datasets)


def test_what_was_added_is_listed_with_the_jobs_that_used_it(
    orch: Orch, store: base.Store, archive: Path, added: dataviews.HeldPart
) -> None:
    held = parts.training(store)
    known = jobs.Dataset(hash=added.hash, source="s", classes=added.classes, counts={}, bytes=1, path="/d")
    store.record_dataset(held, known)
    parts.submit(store, spec=specs.JobSpec(data=str(archive)))
    parts.submit(store)
    (row,) = listed(orch)
    assert (row.sources, row.classes, row.counts) == ((str(archive),), ("cats", "dogs"), {"train": 12, "val": 7})
    assert (row.unpacked, row.whole, row.shared) == (True, True, 1)
    assert row.jobs == (held.id,)
    assert len(row.live) == 2  # the one that trains on it, and the one that waits to download it
    assert orch("data", "rm", added.hash[:6]).code == 1
    store.cancel(held.id, actor="ada")
    assert listed(orch)[0].live == row.live  # it has not ended yet


def test_showing_reads_every_picture_and_draws_some(
    orch: Orch, archive: Path, added: dataviews.HeldPart, tmp_path: Path
) -> None:
    (Path(added.path) / "train/dogs/1.png").write_bytes(b"no picture")
    sheet = tmp_path / "sheet.png"
    found = dataviews.ExaminedPayload.model_validate_json(
        orch("data", "show", str(archive), "--json", "-o", str(sheet)).out
    )
    assert found.by_class == {"train": (6, 6), "val": (4, 3)}
    assert [(one.train, one.val) for one in found.duplicates] == [
        (("train/cats/0.jpg",), ("validation/cats/again.jpg",))
    ]
    assert found.faults == ("train/dogs/1.png is not a picture",)
    with Image.open(sheet) as drawn:
        assert len(drawn.convert("RGB").getcolors(2**20) or ()) > 100  # photographs are on it
    assert orch("data", "show", added.hash, "-o", str(sheet)).err.endswith(f"{sheet}: 12 pictures of 2 classes.\n")


def test_a_sheet_is_refused_before_anything_is_read_and_half_of_one_never_stays(
    orch: Orch, added: dataviews.HeldPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = orch("data", "show", added.hash, "-o", str(tmp_path / "sheet.xyz"))
    assert (wrong.code, wrong.out, "is no picture that can be written" in wrong.err) == (2, "", True)

    def save(_: Image.Image, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    (tmp_path / "sheet.png").write_bytes(b"old")
    full = orch("data", "show", added.hash, "-o", str(tmp_path / "sheet.png"))
    assert (full.code, "No space left" in full.err) == (1, True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.glob("*.png")] == [("sheet.png", b"old")]


def test_people_are_told_how_many_more_there_are(screen: Screen, added: dataviews.HeldPart) -> None:
    for picture in Path(added.path).glob("train/*/*"):
        picture.write_bytes(b"no picture")
    said = plain(screen("data", "show", added.hash))
    assert said.count("unreadable:") == 10
    assert "and 2 more faults: a pipe has all, `--json` too" in said


@pytest.mark.slow
def test_verifying_finds_every_change_and_removing_makes_room(
    orch: Orch, settings: config.Settings, added: dataviews.HeldPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        asked.elsewhere(patch)
        assert orch("data", "verify", added.hash[:8]).code == 0
    picture = Path(added.path) / "train/cats/0.jpg"
    picture.write_bytes(picture.with_name("2.jpg").read_bytes())  # a picture still, but another
    changed = orch("data", "verify", added.hash[:8])
    assert (changed.code, "is not what it was" in changed.err) == (1, True)
    assert orch("data", "rm", added.hash).code == 0
    assert listed(orch) == []
    assert [path for path in settings.data_dir.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_folder_is_used_where_it_is_and_stays(orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures.image_folder(tmp_path / "mine", size=(12, 10))
    monkeypatch.chdir(tmp_path)
    assert orch("data", "add", "mine").code == 0
    (row,) = listed(orch)
    assert (row.unpacked, row.path) == (False, str(folder))
    assert orch("data", "rm", "mine").code == 0
    assert listed(orch) == []
    assert len(list(folder.rglob("*.*"))) == 18


def test_what_is_not_there_is_named(orch: Orch) -> None:
    assert orch("data", "show", "nothing").code == 3
    assert orch("data", "add", "/nowhere").code == 1
    assert orch("data", "list").out == ""
    assert json.loads(orch("data", "list", "--json").out)["datasets"] == []


def test_a_set_is_found_by_its_url_of_whose_secret_nothing_is_kept(
    store: base.Store, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, object] = dict.fromkeys(("bytes", "decoded", "shared", "used_at"), 1)
    row = {"hash": "d" * 64, "classes": [], "counts": {}, "path": "/x", "unpacked": True, "whole": True, **counts}
    row["sources"] = ["https://***@host/x.zip?***"]
    monkeypatch.setattr(asking, "ask", lambda *_: iter([row]))
    assert datasets.find(settings, store, "https://ada:secret@host/x.zip?token=1").hash == row["hash"]
    with pytest.raises(errors.NotFound):
        datasets.find(settings, store, "https://ada:secret@host/y.zip")
