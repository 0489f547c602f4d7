import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.training import support
from worker import protocol
from worker.data import loader
from worker.models import zoo
from worker.training import checkpoint, predict, stage


@pytest.fixture(scope="module")
def trained(data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request about the checkpoint of one epoch, without pictures yet."""
    root = tmp_path_factory.mktemp("trained")
    follower = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1)), follower)
    info, _ = follower.last(root)
    return {
        "checkpoint": str(root / info.path),
        "sha256": info.sha256,
        "bytes": info.bytes,
        "spec": support.spec(epochs=1).model_dump(mode="json"),
        "classes": list(data.classes),
        "top": 5,
    }


def ask(
    request: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]], str]:
    """Ask in this process; return exit code, lines, and what was said on standard error."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(request).encode())))
    code = predict.main()
    said = capfd.readouterr()
    return code, [json.loads(line) for line in said.out.splitlines()], said.err


def answers(request: dict[str, Any]) -> list[dict[str, Any]]:
    asked = predict.Request.model_validate_json(json.dumps(request))
    saved = checkpoint.read(asked.checkpoint, size=asked.bytes, sha256=asked.sha256)
    return list(predict.predict(asked, saved))


def pictures_of(data: protocol.DatasetInfo) -> list[str]:
    return sorted(str(path) for path in (Path(data.path) / "validation").rglob("*.*"))


def test_one_line_a_picture_in_order_also_where_one_failed(
    data: protocol.DatasetInfo,
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    good = pictures_of(data)
    asked = [good[0], str(broken), str(tmp_path / "none.jpg"), good[1]]
    code, lines, said = ask(trained | {"images": asked}, monkeypatch, capfd)
    assert (code, said) == (0, "")
    assert [line["image"] for line in lines] == asked
    assert [line.get("error") for line in lines] == [None, "is not a picture", "No such file or directory", None]


def test_0_where_all_could_be_read(
    data: protocol.DatasetInfo,
    trained: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, lines, _ = ask(trained | {"images": pictures_of(data)}, monkeypatch, capfd)
    assert (code, len(lines)) == (0, 6)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"sha256": "0" * 64}, "cannot be used: its sha256 is another."),
        ({"checkpoint": "/nowhere"}, "cannot be used: No such file or directory."),
        ({"top": 0}, "The request cannot be read"),
    ],
)
def test_2_and_why_where_the_request_cannot_be_met(
    trained: dict[str, Any],
    fault: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, (line,), _ = ask(trained | {"images": []} | fault, monkeypatch, capfd)
    assert code == 2
    assert said in line["refused"]["message"]


def test_probabilities_are_those_of_the_validation_transform(
    data: protocol.DatasetInfo, trained: dict[str, Any]
) -> None:
    spec = support.spec(epochs=1)
    network = zoo.build(spec, 2)
    saved = checkpoint.read(Path(trained["checkpoint"]), size=trained["bytes"], sha256=trained["sha256"])
    network.load_state_dict(saved.part("model"))
    network.eval()
    split = loader.SeededImageFolder(data, spec, "val")
    paths = [str(split.root / picture.path) for picture in split.pictures]
    for index, answer in enumerate(answers(trained | {"images": paths})):
        wanted = network(split[0, index][0][None]).softmax(1)[0].tolist()
        found = {guess["class"]: guess["probability"] for guess in answer["predictions"]}
        assert found == pytest.approx(dict(zip(data.classes, wanted, strict=True)))
        assert [guess["probability"] for guess in answer["predictions"]] == sorted(found.values(), reverse=True)


def test_top_limits_the_guesses(data: protocol.DatasetInfo, trained: dict[str, Any]) -> None:
    (answer,) = answers(trained | {"images": pictures_of(data)[:1], "top": 1})
    assert len(answer["predictions"]) == 1


def test_where_an_average_is_kept_it_is_what_predicts(data: protocol.DatasetInfo, root: Path) -> None:
    follower, recipe = support.Follower(), support.spec(epochs=1, ema=0.5)
    stage.train(data, support.assignment(root, recipe), follower)
    info, tensors = follower.last(root)
    saved = checkpoint.read(root / info.path, size=info.bytes, sha256=info.sha256)
    average = {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    assert support.same(saved.weights(), average)
    assert not support.same(saved.weights(), saved.part("model"))
    network = zoo.build(recipe, 2)
    network.load_state_dict(average)
    network.eval()
    split = loader.SeededImageFolder(data, recipe, "val")
    request = predict.Request(
        checkpoint=root / info.path,
        sha256=info.sha256,
        bytes=info.bytes,
        spec=recipe,
        classes=data.classes,
        images=(split.root / split.pictures[0].path,),
        top=2,
    )
    (answer,) = predict.predict(request, saved)
    wanted = network(split[0, 0][0][None]).softmax(1)[0].tolist()
    found = {guess["class"]: guess["probability"] for guess in answer["predictions"]}
    assert found == pytest.approx(dict(zip(data.classes, wanted, strict=True)))
