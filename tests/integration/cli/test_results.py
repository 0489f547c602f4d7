"""`orch compare`, `plot` and `confusion`: figures in a pipe and in JSON, charts on a terminal, pictures in files."""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.core import jobs, specs, states
from orchestrator.service import resultviews
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.integration.cli.test_terminal import Screen, plain, screen

__all__ = ["screen"]


def trained(store: base.Store, *accuracies: float, name: str | None = None, **fields: Any) -> jobs.Job:
    """Return a job whose training reached these accuracies, an epoch each of ten steps."""
    held = parts.training(store, spec=specs.parse({"data": "digits", **fields}), name=name)
    for epoch, accuracy in enumerate(accuracies, 1):
        step = 10 * epoch
        losses = [jobs.StepMetric(step=at, name="loss", value=1 / at) for at in range(step - 9, step + 1)]
        store.record_steps(held, losses)
        point = parts.checkpoint(held, step, accuracy=accuracy, epoch=epoch)
        store.record_checkpoint(held, point, parts.epoch_rows(epoch, accuracy=accuracy))
    store.finish(held, parts.DONE)
    return store.get(held.id)


@pytest.fixture
def pair(store: base.Store) -> tuple[jobs.Job, jobs.Job]:
    return trained(store, 0.5, 0.9, 0.8, name="fast", lr=0.01), trained(store, 0.3, 0.4, lr=0.001)


def test_a_comparison_in_a_pipe_has_a_field_for_each_job(orch: Orch, pair: tuple[jobs.Job, jobs.Job]) -> None:
    fast, slow = pair
    rows = orch("compare", fast.id, slow.id, "fast").rows  # whoever is named twice is there once
    assert rows[:3] == [["job", "id", fast.id, slow.id], ["job", "name", "fast", ""], ["job", "state", *["queued"] * 2]]
    assert [row for row in rows if row[0] == "setting"] == [["setting", "lr", "0.01", "0.001"]]
    results = {row[1]: row[2:] for row in rows if row[0] == "result"}
    assert results["epochs_ended"] == ["3", "2"]
    assert results["best_accuracy"] == ["0.9", "0.4"]
    assert results["best_accuracy_epoch"] == ["2", "2"]
    assert results["seconds"] == ["9.0", "6.0"]
    assert results["epoch_seconds"] == ["3.0", "3.0"]


def test_a_comparison_in_json(orch: Orch, pair: tuple[jobs.Job, jobs.Job]) -> None:
    found = resultviews.ComparisonPayload.model_validate_json(orch("compare", pair[1].id, "fast", "--json").out)
    assert found.settings == {"lr": (0.001, 0.01)}
    assert [(one.id, one.best_accuracy) for one in found.jobs] == [(pair[1].id, 0.4), (pair[0].id, 0.9)]
    assert found.same_data


def test_one_job_is_no_comparison(orch: Orch, pair: tuple[jobs.Job, jobs.Job]) -> None:
    ran = orch("compare", pair[0].id, "fast")
    assert ran.code == 2
    assert "two jobs or more" in ran.err


def test_secrets_in_the_url_of_the_data_stay_secret(orch: Orch, store: base.Store) -> None:
    two = [
        parts.submit(store, spec=specs.parse({"data": f"https://ada:canary@example.org/{name}.zip"})).id
        for name in ("a", "b")
    ]
    for words in ((), ("--json",)):
        assert "canary" not in orch("compare", *two, *words).out


def test_points_of_curves_in_a_pipe_and_in_json(orch: Orch, pair: tuple[jobs.Job, jobs.Job]) -> None:
    fast, slow = pair
    rows = orch("plot", fast.id, slow.id, "--metric", "val_accuracy", "--x", "step").rows
    assert rows == [
        [fast.id, "val_accuracy", "10", "0.5"],
        [fast.id, "val_accuracy", "20", "0.9"],
        [fast.id, "val_accuracy", "30", "0.8"],
        [slow.id, "val_accuracy", "10", "0.3"],
        [slow.id, "val_accuracy", "20", "0.4"],
    ]
    found = resultviews.CurvesPayload.model_validate_json(orch("plot", fast.id, "--smooth", "0.5", "--json").out)
    assert [curve.metric for curve in found.curves] == ["loss", "val_loss", "train_accuracy", "val_accuracy"]
    assert found.curves[0].points[9][0] == 1  # its tenth step ends the first epoch
    assert [y for _, y in found.curves[3].points] == pytest.approx([0.5, 0.7667, 0.7857], abs=1e-4)


def test_a_metric_that_is_absent_is_named_beside_those_that_are_there(
    orch: Orch, store: base.Store, pair: tuple[jobs.Job, jobs.Job], tmp_path: Path
) -> None:
    held = parts.training(store, spec=specs.parse({"data": "digits"}))
    picture, asked = str(tmp_path / "c.png"), ("plot", held.id, "--metric", "loss")
    assert f"Nothing of {held.id} has been measured." in orch(*asked, "-o", picture).err
    store.record_steps(held, [jobs.StepMetric(step=1, name="loss", value=1.0)])
    by_epoch = orch(*asked, "-o", picture)
    assert (by_epoch.code, "--metric loss --x step` draws what there is." in by_epoch.err) == (1, True)
    assert orch(*asked, "--x", "step").rows == [[held.id, "loss", "1", "1.0"]]
    nothing = orch("plot", held.id, "--metric", "lr", "--x", "step")
    assert (nothing.code, nothing.out) == (0, "")
    assert f"note: There is no lr of {held.id}, but loss. `orch plot {held.id}` draws those." in nothing.err
    assert orch("plot", pair[0].id, "--metric", "lr").err == ""


def test_people_are_told_of_mistakes_and_curves_that_have_no_room(screen: Screen, store: base.Store) -> None:
    names = tuple(f"{'long' * 8}{number}" for number in range(4))
    job = evaluated(store, tuple(tuple(int(row == column) for column in range(4)) for row in range(4)), names)
    assert "\nno mistake\n" in plain(screen("confusion", job.id))
    many = [job.id, *(trained(store, 0.5, 0.6).id for _ in range(10))]
    assert "The curves are those of the first 10 jobs, of 11." in plain(screen("compare", *many))


def test_json_is_printed_beside_a_picture(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    job = evaluated(store, ((3, 1), (0, 2)), ("cat", "dog"))
    for command, payload in (("plot", resultviews.CurvesPayload), ("confusion", resultviews.ConfusionPayload)):
        ran = orch(command, job.id, "--json", "-o", str(tmp_path / f"{command}.png"))
        payload.model_validate_json(ran.out)
        assert (tmp_path / f"{command}.png").exists()


def test_more_jobs_than_lines_that_differ_are_refused(orch: Orch, store: base.Store) -> None:
    many = [trained(store, 0.5).id for _ in range(11)]
    assert "too many" in orch("plot", *many).err
    assert len(orch("compare", *many).rows[0]) == 13


@pytest.fixture(scope="module")
def _fonts() -> None:
    """Let matplotlib look for fonts, which it tells of where that takes long, before a command draws."""
    importlib.import_module("matplotlib.font_manager")


@pytest.mark.usefixtures("_fonts")
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_whole_and_the_same_again(
    orch: Orch, pair: tuple[jobs.Job, jobs.Job], tmp_path: Path, suffix: str, store: base.Store
) -> None:
    third = trained(store, 0.2, 0.3, name="_$\\frac{$")  # begins as no legend may, and no formula
    file = tmp_path / f"curves.{suffix}"
    words = ("plot", "fast", pair[1].id, third.id, "-o", str(file))
    ran = orch(*words)
    assert (ran.code, ran.out, ran.err) == (0, "", f"Drawn to {file}.\n")
    drawn = file.read_bytes()
    assert orch(*words).code == 0
    assert file.read_bytes() == drawn
    assert [path.name for path in tmp_path.glob("*curves*")] == [file.name]
    if suffix == "png":
        with Image.open(file) as image:
            assert image.size == (1920, 660)  # two panels
    else:
        assert b"<svg" in drawn
        ticks = re.findall(rb"<!-- ([0-9.]+) -->", drawn)  # matplotlib notes there what it draws as paths
        assert b"2" in ticks  # there is no epoch 1.25
        assert b"1.25" not in ticks


def test_a_picture_that_cannot_be_is_refused_with_what_helps(
    orch: Orch, pair: tuple[jobs.Job, jobs.Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: base.Store
) -> None:
    job = pair[0].id
    assert orch("plot", job, "-o", str(tmp_path / "curves.gif")).code == 2
    assert "There is no folder" in orch("plot", job, "-o", str(tmp_path / "nowhere" / "curves.png")).err
    waiting = parts.submit(store)
    assert "nothing to draw" in orch("plot", waiting.id, "-o", str(tmp_path / "curves.png")).err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    ran = orch("plot", job, "-o", str(tmp_path / "curves.png"))
    assert (ran.code, "pip install 'orch[plot]'" in ran.err) == (1, True)
    assert not list(tmp_path.glob("*.png"))


def evaluated(store: base.Store, confusion: tuple[tuple[int, ...], ...], classes: tuple[str, ...]) -> jobs.Job:
    """Return a job whose evaluation has this matrix."""
    job = trained(store, 0.5)
    held = parts.claimed(store, states.Stage.EVALUATE)
    columns = list(zip(*confusion, strict=True))
    store.record_evaluation(
        held,
        jobs.Evaluation(
            attempt=held.attempt,
            checkpoint_step=10,
            checkpoint_sha256=f"{10:064x}",
            loss=0.7,
            accuracy=sum(row[number] for number, row in enumerate(confusion)) / sum(map(sum, confusion)),
            images=sum(map(sum, confusion)),
            classes=classes,
            precision=tuple(row[number] / max(1, sum(columns[number])) for number, row in enumerate(confusion)),
            recall=tuple(row[number] / max(1, sum(row)) for number, row in enumerate(confusion)),
            confusion=confusion,
            seconds=0.1,
        ),
    )
    store.finish(held, parts.DONE)
    return store.get(job.id)


def test_the_evaluation_of_an_extended_job_is_not_shown_as_of_a_better_checkpoint(
    screen: Screen, orch: Orch, store: base.Store
) -> None:
    job = evaluated(store, ((3, 1), (0, 2)), ("cat", "dog"))
    assert "Evaluation of the best checkpoint" in plain(screen("status", job.id))
    store.extend(job.id, epochs=job.spec.epochs + 1, actor="ada")
    assert "Evaluation of the best checkpoint" in plain(screen("status", job.id))  # it is that still
    assert orch("confusion", job.id).err == ""
    held = parts.claimed(store, states.Stage.TRAIN)
    point = parts.checkpoint(held, 20, accuracy=0.9, epoch=2)
    store.record_checkpoint(held, point, parts.epoch_rows(2, accuracy=0.9))
    assert "Evaluation of step 10, not the best checkpoint of now" in plain(screen("status", job.id))
    assert "This is of step 10, not the best checkpoint of now" in orch("confusion", job.id).err


def test_a_matrix_that_has_no_room_is_left_out_of_the_page(screen: Screen, store: base.Store) -> None:
    names = [f"class {number}" for number in range(40)]
    job = evaluated(store, tuple(tuple(int(one == other) for other in names) for one in names), tuple(names))
    page = plain(screen("status", job.id))
    assert ("class 39" in page, "→" in page, "has no room here" in page) == (True, False, True)
    assert "→ class 39" in plain(screen("status", job.id, COLUMNS="800"))


def test_a_confusion_matrix_in_a_pipe_and_in_json(orch: Orch, store: base.Store) -> None:
    job = evaluated(store, ((3, 1, 0), (1, 1, 0), (2, 0, 0)), ("cat", "dog", "owl"))
    rows = orch("confusion", job.id).rows
    assert [row[:2] for row in rows[:4]] == [
        ["class", "cat"],
        ["class", "dog"],
        ["class", "owl"],
        ["average", "average"],
    ]
    assert [float(field) for field in rows[0][2:]] == pytest.approx([3 / 6, 3 / 4, 0.6, 4])
    assert [float(field) for field in rows[2][2:]] == [0, 0, 0, 2]  # nothing was taken for an owl
    assert [float(field) for field in rows[3][2:]] == pytest.approx([1 / 3, 1.25 / 3, 1.1 / 3, 8])
    assert rows[4:7] == [["cell", "cat", "cat", "3"], ["cell", "cat", "dog", "1"], ["cell", "cat", "owl", "0"]]
    found = resultviews.ConfusionPayload.model_validate_json(orch("confusion", job.id, "--json").out)
    assert found.confusion == ((3, 1, 0), (1, 1, 0), (2, 0, 0))
    assert found.classes[0].f1 == pytest.approx(0.6)
    assert found.classes[1].support == 2


def test_a_confusion_matrix_as_a_picture(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    job = evaluated(store, ((3, 1), (0, 2)), ("$x_{$", "\u732b"))  # no formula, and a letter that the font may lack
    assert orch("confusion", job.id, "-o", str(tmp_path / "c.png")).code == 0
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > image.height > 300


def test_a_job_that_was_not_evaluated_has_no_matrix(orch: Orch, store: base.Store) -> None:
    ran = orch("confusion", parts.submit(store).id)
    assert (ran.code, "has not been evaluated" in ran.err) == (3, True)


@pytest.mark.parametrize("command", ["plot", "confusion", "samples", "data show"])
@pytest.mark.parametrize("output", [".", "/", f"{'x' * 300}.png", "no/such/folder.png"])
def test_a_target_that_cannot_be_is_refused(orch: Orch, command: str, output: str) -> None:
    ran = orch(*command.split(), "abcdefgh", "-o", output)
    assert (ran.code, ran.out) == (2, "")
    assert "defect" not in ran.err
