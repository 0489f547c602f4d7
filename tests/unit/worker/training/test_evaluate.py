"""A checkpoint measured on other data: classes go by their names, and the result is that of the same pictures."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import errors
from tests.support import pictures
from tests.unit.worker.training import support
from worker import answers, protocol
from worker.training import checkpoint, evaluate, stage

RECIPE = support.spec(epochs=1)


@pytest.fixture(scope="module")
def trained(
    data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], protocol.Assignment]:
    """What is asked about a checkpoint, and what its own job's evaluation would be told."""
    root = tmp_path_factory.mktemp("trained")
    follower = support.Follower()
    stage.train(data, support.assignment(root, RECIPE), follower)
    info, _ = follower.last(root)
    network = {"checkpoint": root / info.path, "sha256": info.sha256, "bytes": info.bytes}
    return {**network, "spec": RECIPE, "classes": data.classes, "threads": 1}, support.assignment(
        root, RECIPE, earlier=(follower,)
    )


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))


def measured(asked: dict[str, Any], data: str, split: str = "val") -> list[answers.Answer]:
    request = evaluate.Request(**asked, data=data, split=split)
    saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
    said: list[answers.Answer] = []
    evaluate.elsewhere(request, saved, said.append)
    return said


def test_the_job_s_own_pictures_give_its_own_evaluation(
    trained: tuple[dict[str, Any], protocol.Assignment], data: protocol.DatasetInfo
) -> None:
    asked, told = trained
    follower, said = support.Follower(), measured(asked, data.path)
    stage.measure(data, told, follower)
    (own,) = follower.of(protocol.Evaluated)
    assert protocol.Evaluated(**said[-1]["evaluation"] | {"seconds": own.seconds}) == own
    assert {line["progress"]["unit"] for line in said[:-1]} == {"images"}
    assert measured(asked, data.path, "train")[-1]["evaluation"]["images"] == data.counts["train"]


def test_classes_go_by_name_whatever_their_order_in_the_network(
    trained: tuple[dict[str, Any], protocol.Assignment], data: protocol.DatasetInfo
) -> None:
    asked, _ = trained
    as_trained = measured(asked, data.path)[-1]["evaluation"]
    turned = measured(asked | {"classes": ("dogs", "cats")}, data.path)[-1]["evaluation"]
    # The same logits, whose names are exchanged: what was right is wrong.
    assert turned["accuracy"] == pytest.approx(1 - as_trained["accuracy"])
    assert turned["classes"] == ["dogs", "cats"]


def test_other_classes_are_named(trained: tuple[dict[str, Any], protocol.Assignment], tmp_path: Path) -> None:
    other = pictures.image_folder(tmp_path / "other", classes=("cats", "frogs"), size=(12, 10))
    with pytest.raises(errors.OrchError, match="other classes") as refused:
        measured(trained[0], str(other))
    assert refused.value.why == "Only the network has dogs; only the data has frogs."


def test_what_is_no_data_set_is_refused_by_the_guard_of_every_job(
    trained: tuple[dict[str, Any], protocol.Assignment],
) -> None:
    with pytest.raises(errors.OrchError, match="no /nowhere"):
        measured(trained[0], "/nowhere")


def test_the_job_s_own_data_must_be_what_it_was(
    trained: tuple[dict[str, Any], protocol.Assignment], data: protocol.DatasetInfo
) -> None:
    found = measured(trained[0], data.path)[-1]["hash"]
    assert measured(trained[0] | {"data_hash": found}, data.path)[-1]["hash"] == found
    with pytest.raises(errors.OrchError, match="The data changed since the job began"):
        measured(trained[0] | {"data_hash": "0" * 64}, data.path)
