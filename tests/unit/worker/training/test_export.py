"""What is exported says what the network says, whatever the number of pictures, or there is no file."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import safetensors
import torch

from orchestrator import errors
from tests.unit.worker.training import support
from worker import answers, protocol
from worker.data import supply
from worker.training import asked as asked_of
from worker.training import checkpoint, export, stage

RECIPE = support.spec(epochs=1)


@pytest.fixture(scope="module")
def asked(data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is asked about the checkpoint of one epoch, but for format and path."""
    root = tmp_path_factory.mktemp("trained")
    follower = support.Follower()
    stage.train(data, support.assignment(root, RECIPE), follower)
    info, _ = follower.last(root)
    return {
        "checkpoint": root / info.path,
        "sha256": info.sha256,
        "bytes": info.bytes,
        "spec": RECIPE,
        "classes": data.classes,
        "preprocessing": {"classes": data.classes, "network": vars(RECIPE.shape)},
        "data_hash": data.hash,
    }


@pytest.fixture(autouse=True)
def _here(data: protocol.DatasetInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    monkeypatch.setattr(supply, "here", lambda *_, **__: data)


def exported(asked: dict[str, Any], form: str, path: Path) -> tuple[answers.Answer, export.Request]:
    request = export.Request(**asked, format=form, path=path)
    saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
    return export.export(request, saved), request


def test_weights_are_those_of_the_checkpoint_and_name_their_network(asked: dict[str, Any], tmp_path: Path) -> None:
    answer, request = exported(asked, "safetensors", tmp_path / "a.safetensors")
    assert (answer["difference"], answer["images"], answer["pictures"]) == (0, 6, "validation")
    with safetensors.safe_open(request.path, framework="pt") as file:
        kept = json.loads(file.metadata()["orch"])
        names = set(file.keys())
    saved = checkpoint.read(request.checkpoint, size=request.bytes, sha256=request.sha256)
    assert names == saved.weights().keys()
    assert kept["classes"] == ["cats", "dogs"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_and_onnx_take_any_number_of_pictures(asked: dict[str, Any], tmp_path: Path) -> None:
    _, program = exported(asked, "torch-export", tmp_path / "a.pt2")
    answer, onnx = exported(asked, "onnx", tmp_path / "a.onnx")
    assert answer["difference"] < 1e-5
    inside = {"orch.json": ""}
    loaded = torch.export.load(program.path, extra_files=inside).module()
    session = onnxruntime.InferenceSession(str(onnx.path), providers=["CPUExecutionProvider"])
    saved = checkpoint.read(onnx.checkpoint, size=onnx.bytes, sha256=onnx.sha256)
    network = asked_of.network(onnx, saved)
    source = torch.Generator().manual_seed(1)
    for count in (1, 3, 33):
        pictures = torch.randn(count, 3, 8, 8, generator=source)
        wanted = network(pictures).detach()
        torch.testing.assert_close(loaded(pictures).detach(), wanted)
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"pictures": pictures.numpy()})[0]), wanted)
    kept = json.loads(session.get_modelmeta().custom_metadata_map["orch"])
    assert kept == json.loads(inside["orch.json"])
    assert kept["classes"] == ["cats", "dogs"]


def test_without_the_data_pictures_are_generated(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "here", lambda *_, **__: None)
    answer, _ = exported(asked, "safetensors", tmp_path / "a.safetensors")
    assert (answer["images"], answer["pictures"]) == (sum(export.BATCHES), "generated")


@pytest.mark.parametrize(
    "spoil",
    [lambda logits: logits + 0.01, lambda logits: logits * float("nan"), lambda logits: logits[:, :1]],
    ids=["shifted", "no numbers", "a class less"],
)
def test_a_file_that_says_something_else_is_none(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    write, load = export._FORMATS["safetensors"]

    def spoiled(request: export.Request) -> export.Network:
        network = load(request)
        return lambda pictures: spoil(network(pictures))

    monkeypatch.setitem(export._FORMATS, "safetensors", (write, spoiled))
    with pytest.raises(errors.OrchError, match="The exported file"):
        exported(asked, "safetensors", tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(asked: dict[str, Any], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(errors.OrchError, match="cannot be written"):
        exported(asked, "safetensors", tmp_path / "a.safetensors")
