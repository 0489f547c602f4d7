"""Trainings that start from weights: the network has them, the classifier is new, and a resumed one needs no file."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from orchestrator import errors
from orchestrator.core import states
from tests.unit.worker.training import support
from worker import protocol
from worker.models import zoo
from worker.training import stage


def written(folder: Path, *, seed: int = 11) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return a file of weights of the tiny network for five classes, and what is in it."""
    torch.manual_seed(seed)
    state = zoo.build(support.spec(), 5).state_dict()
    safetensors.torch.save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors", state


def test_the_first_loss_is_that_of_the_weights(data: protocol.DatasetInfo, root: Path) -> None:
    plain, started = support.Follower(), support.Follower()
    path, state = written(root)
    stage.train(data, support.assignment(root, support.spec(epochs=1)), plain)
    spec = support.spec(epochs=1, weights=str(path), lr=1e-12)  # so small that the weights stay
    stage.train(data, support.assignment(root, spec, attempt=2), started)
    assert plain.steps[0] != started.steps[0]
    trained = {name.removeprefix("model."): value for name, value in started.last(root)[1].items() if "model." in name}
    assert torch.allclose(trained["conv1.weight"], state["conv1.weight"], atol=1e-9)
    torch.manual_seed(spec.seed)
    assert torch.allclose(trained["linear.weight"], zoo.build(spec, 2).linear.weight, atol=1e-9)  # two classes, new
    (note,) = started.of(protocol.Note)
    assert (note.kind, note.detail) == ("weights_loaded", f"{path}, all but the classifier")


def test_a_training_that_goes_on_needs_the_file_no_more(data: protocol.DatasetInfo, root: Path) -> None:
    path, _ = written(root)
    spec = support.spec(epochs=2, weights=str(path))
    whole, first, second = support.Follower(), support.Follower(support.stop_at(3)), support.Follower()
    stage.train(data, support.assignment(root, spec, attempt=3), whole)
    stage.train(data, support.assignment(root, spec), first)
    path.unlink()
    stage.train(data, support.assignment(root, spec, attempt=2, earlier=(first,)), second)
    assert first.steps + second.steps == whole.steps
    assert support.same(second.last(root)[1], whole.last(root)[1])


def child(root: Path, parent: support.Follower, **fields: object) -> protocol.Assignment:
    """Return the assignment of a job that starts from what `parent` has trained."""
    info = parent.last(root)[0]
    spec = support.spec(**{"epochs": 1, "lr": 1e-12, "seed": 8, "weights": "job:parentid"} | fields)
    return support.assignment(root, spec, attempt=5, start=info)


def test_a_jobs_checkpoint_is_started_from_with_its_classifier(data: protocol.DatasetInfo, root: Path) -> None:
    parent, follower = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1)), parent)
    stage.train(data, child(root, parent), follower)
    before, after = parent.last(root)[1], follower.last(root)[1]
    for name in ("model.conv1.weight", "model.linear.weight"):
        assert torch.allclose(after[name], before[name], atol=1e-9)
    (note,) = follower.of(protocol.Note)
    assert note.detail == "job parentid, step 3, classifier and all"


def test_other_classes_get_a_classifier_of_their_own(
    data: protocol.DatasetInfo, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parent, follower = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1)), parent)
    others = support.dataset(tmp_path_factory.mktemp("others"), classes=("cats", "horses"))
    stage.train(others, child(root, parent), follower)
    before, after = parent.last(root)[1], follower.last(root)[1]
    assert torch.allclose(after["model.conv1.weight"], before["model.conv1.weight"], atol=1e-9)
    assert not torch.allclose(after["model.linear.weight"], before["model.linear.weight"], atol=1e-3)


def test_the_average_is_what_is_started_from(data: protocol.DatasetInfo, root: Path) -> None:
    parent, follower = support.Follower(), support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1, ema=0.9)), parent)
    stage.train(data, child(root, parent), follower)
    before, after = parent.last(root)[1], follower.last(root)[1]
    assert torch.allclose(after["model.conv1.weight"], before["ema.conv1.weight"], atol=1e-9)
    assert not torch.allclose(before["model.conv1.weight"], before["ema.conv1.weight"], atol=1e-9)


def test_a_checkpoint_that_is_damaged_or_gone_fails_as_such(data: protocol.DatasetInfo, root: Path) -> None:
    parent = support.Follower()
    stage.train(data, support.assignment(root, support.spec(epochs=1)), parent)
    told = child(root, parent)
    (root / parent.last(root)[0].path).write_bytes(b"x")
    for assignment in (told, told.model_copy(update={"start": None})):
        with pytest.raises(errors.StageFailed, match="checkpoint of job parentid cannot be used") as failed:
            stage.train(data, assignment, support.Follower())
        assert failed.value.reason is states.Reason.NO_VALID_CHECKPOINT


def test_weights_of_another_network_fail_as_bad_input(data: protocol.DatasetInfo, root: Path) -> None:
    path, _ = written(root)
    with pytest.raises(errors.StageFailed, match="do not fit the network") as failed:
        stage.train(data, support.assignment(root, support.spec(weights=str(path), growth_rate=5)), support.Follower())
    assert failed.value.reason is states.Reason.BAD_INPUT
    assert not list((root / "testtest").rglob("*.safetensors"))
