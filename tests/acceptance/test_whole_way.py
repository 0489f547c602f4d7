"""The whole way, as a person goes it, on real photographs: up, submit a URL, wait, look, predict, down."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import environ
from tests.support import httpserver, running

pytestmark = [pytest.mark.photos, pytest.mark.slow, pytest.mark.timeout(480)]

TRAIN, VAL, EPOCHS = 16, 8, 2


@pytest.fixture(scope="module")
def photographs() -> bytes:
    """A zip with the first photographs of each class of each split, in the layout of the whole."""
    path = environ.of_tests("ORCH_TEST_PHOTOS")
    if path is None:
        pytest.skip("ORCH_TEST_PHOTOS names no archive of photographs")
    some = io.BytesIO()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(some, "w") as subset:
        names = sorted(name for name in whole.namelist() if name.endswith(".jpg"))
        for split, count in (("train", TRAIN), ("validation", VAL)):
            for label in ("cats", "dogs"):
                for name in [name for name in names if f"/{split}/{label}/" in name][:count]:
                    subset.writestr(name, whole.read(name))
    return some.getvalue()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Installation]:
    with running.installation(tmp_path_factory.mktemp("whole") / "home", migrated=False, lease=30) as installation:
        installation.orch("up", "-d", timeout=200)
        yield installation
        installation.orch("down")


@pytest.fixture(scope="module")
def job(installed: running.Installation, photographs: bytes) -> str:
    """The id of a job that trained the photographs with the notebook's network and transforms, at 32 pixels."""
    with httpserver.Server() as server:
        server.on("/cats_and_dogs.zip", httpserver.Reply(body=photographs))
        recipe = f"--image-size 32 --batch-size 8 --epochs {EPOCHS} --lr 1e-4".split()
        submitted = installed.orch("submit", "-q", "--data", server.url("/cats_and_dogs.zip"), *recipe)
        job_id = submitted.stdout.strip()
        installed.orch("wait", job_id, timeout=240)
    return job_id


def test_the_photographs_are_trained_and_measured(installed: running.Installation, job: str) -> None:
    status = json.loads(installed.orch("status", job, "--json").stdout)
    assert status["job"]["state"] == "succeeded"
    assert [(row["epoch"], row["split"], row["images"]) for row in status["epochs"]] == [
        (epoch, split, images)
        for epoch in range(1, EPOCHS + 1)
        for split, images in (("train", 2 * TRAIN), ("val", 2 * VAL))
    ]
    assert sum(map(sum, status["evaluation"]["confusion"])) == 2 * VAL
    assert status["evaluation"]["classes"] == ["cats", "dogs"]
    checkpoints = status["checkpoints"]
    assert [checkpoint["last"] for checkpoint in checkpoints].count(True) == 1
    assert [checkpoint["best"] for checkpoint in checkpoints].count(True) == 1
    assert status["job"]["best_accuracy"] == max(row["accuracy"] for row in status["epochs"] if row["split"] == "val")


def test_photographs_are_predicted(
    installed: running.Installation, job: str, photographs: bytes, tmp_path: Path
) -> None:
    with zipfile.ZipFile(io.BytesIO(photographs)) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "cats_and_dogs_filtered" / "validation" / "cats"
    lines = installed.orch("predict", job, str(folder), "--top", "2", "--json").stdout.splitlines()
    assert len(lines) == VAL
    for line in map(json.loads, lines):
        assert {guess["label"] for guess in line["guesses"]} == {"cats", "dogs"}


def test_its_history_reads_from_submit_to_success(installed: running.Installation, job: str) -> None:
    kinds = [line.split("\t")[1] for line in installed.orch("events", job).stdout.splitlines()]
    assert kinds == ["submitted", *["claimed", "stage_done"] * 2, "claimed", "succeeded"]


def test_the_log_is_never_empty(installed: running.Installation, job: str) -> None:
    logged = installed.orch("logs", job)
    assert (logged.stdout + logged.stderr).strip()
