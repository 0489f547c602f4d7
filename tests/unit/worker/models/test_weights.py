"""Weights from outside: torchvision's give its logits, what does not fit is named, what is no data is refused."""

import errno
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from orchestrator import errors
from orchestrator.core import specs, states
from orchestrator.core import weights as named
from worker.models import densenet, weights, zoo


def theirs(*, classes: int = 5) -> Any:
    """Return a small network of torchvision's whose BatchNorms are not at their first values."""
    torch.manual_seed(3)
    network = torchvision.models.DenseNet(
        growth_rate=4, block_config=(2, 1, 2), num_init_features=8, bn_size=4, num_classes=classes
    )
    network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def ours(*, classes: int = 5, **fields: Any) -> densenet.DenseNet:
    torch.manual_seed(4)
    numbers = {"growth_rate": 4, "blocks": (2, 1, 2), "stem": "imagenet", "transition_relu": True} | fields
    return zoo.build(specs.JobSpec(**numbers), classes).eval()


def legacy(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the names that torchvision's files of 2017 have."""
    return {
        re.sub(r"(denselayer\d+)\.(norm|conv)([12])", r"\1.\2.\3", name): value
        for name, value in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("rename", [dict, legacy])
def test_torchvisions_weights_give_torchvisions_logits(rename: Callable[..., dict[str, torch.Tensor]]) -> None:
    network, given = ours(), theirs()
    images = torch.randn(2, 3, 64, 64)
    weights.start(network, rename(given.state_dict()), head=True, source="theirs")
    assert torch.equal(network(images), given(images))


@pytest.mark.parametrize("name", named.IMAGENET_FILES)
def test_torchvisions_networks_are_ours_by_name(name: str) -> None:
    plain = name.removesuffix("_imagenet")
    with torch.device("meta"):
        network = zoo.build(specs.JobSpec(network=name), 1000)
        given = getattr(torchvision.models, plain)()
    renamed = weights.renamed(given.state_dict(), network)
    assert {key: value.shape for key, value in renamed.items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }
    url = getattr(torchvision.models, f"DenseNet{plain.removeprefix('densenet')}_Weights").IMAGENET1K_V1.url
    assert url == f"{specs_url()}/{named.imagenet_file(specs.JobSpec(network=name).shape)}"


def specs_url() -> str:
    from orchestrator import config  # noqa: PLC0415 - for its default alone

    return str(config.Settings.model_fields["weights_url"].default)


def test_a_densenet121_gives_torchvisions_logits() -> None:
    torch.manual_seed(1)
    given = torchvision.models.densenet121(num_classes=3).eval()
    network = zoo.build(specs.JobSpec(network="densenet121_imagenet"), 3).eval()
    weights.start(network, legacy(given.state_dict()), head=True, source="theirs")
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(images), given(images))


def test_the_classifier_is_made_for_the_classes_of_the_data() -> None:
    network, untouched = ours(classes=2), ours(classes=2)
    weights.start(network, theirs(classes=5).state_dict(), head=False, source="theirs")
    assert torch.equal(network.linear.weight, untouched.linear.weight)
    assert not torch.equal(network.conv1.weight, untouched.conv1.weight)


#: How the network differs from the one that the weights are of, and what the refusal says.
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"growth_rate": 6}, "conv1.weight is 8x3x7x7, not 12x3x7x7"),
    ({"blocks": (2, 2, 2)}, "features.dense_block_layer_1.bottle_neck_layer_1.bottle_neck.0.weight is missing"),
    ({"blocks": (2, 1, 1)}, "features.dense_block2.bottle_neck_layer_1.bottle_neck.0.weight is none of the network's"),
    ({"stem": "cifar"}, "stem.0.weight is none of the network's"),
    ({"transition_relu": False}, "features.transition_layer_0.down_sample.1.weight is missing"),
]


@pytest.mark.parametrize(("fields", "said"), MISFITS)
def test_what_does_not_fit_is_named_and_changes_nothing(fields: dict[str, Any], said: str) -> None:
    network, untouched = ours(**fields), ours(**fields)
    with pytest.raises(errors.StageFailed, match="do not fit") as failed:
        weights.start(network, theirs().state_dict(), head=False, source="theirs")
    assert failed.value.reason is states.Reason.BAD_INPUT
    assert said in str(failed.value.why)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), untouched.parameters(), strict=True))


def test_weights_that_are_not_finite_are_refused() -> None:
    state = theirs().state_dict()
    state["features.conv0.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(errors.StageFailed, match="do not fit") as failed:
        weights.start(ours(), state, head=False, source="theirs")
    assert "conv1.weight is not finite" in str(failed.value.why)


STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "linear.bias": torch.ones(2)}


def saved(state: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **how)
    return file.getvalue()


#: Ways in which the same weights come.
FORMS: dict[str, bytes] = {
    "safetensors": safetensors.torch.save(STATE),
    "a checkpoint of orch": safetensors.torch.save(
        {**{f"model.{name}": value for name, value in STATE.items()}, "optimizer.0.step": torch.ones(1)}
    ),
    "one with an average": safetensors.torch.save(
        {
            **{f"model.{name}": value * 2 for name, value in STATE.items()},
            **{f"ema.{name}": value for name, value in STATE.items()},
        }
    ),
    "a state_dict": saved(STATE),
    "a state_dict of old": saved(STATE, _use_new_zipfile_serialization=False),
    "beside other things": saved({"epoch": 3, "state_dict": STATE}),
    "of DataParallel": saved({f"module.{name}": value for name, value in STATE.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(FORMS[form])
    found = weights.read(tmp_path / "w", sha256=hashlib.sha256(FORMS[form]).hexdigest()[:8])
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


class Command:
    """What a pickle may be: code."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def packed() -> bytes:
    """Return a state_dict in an archive that unpacks to a thousand times its size."""
    plain, out = io.BytesIO(saved({"conv1.weight": torch.zeros(1_000_000)})), io.BytesIO()
    with zipfile.ZipFile(plain) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.infolist():
            after.writestr(member.filename, before.read(member))
    return out.getvalue()


#: What is no weights, and a word of the refusal.
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "neither a safetensors file nor a state_dict"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a safetensors file nor a state_dict"),
    "half a safetensors file": (safetensors.torch.save(STATE)[:-4], "no whole safetensors file"),
    "a header too long": (b"\xff" * 7 + b"\x7f{", "no whole safetensors file"),
    "half a state_dict": (saved(STATE)[:300], "neither a safetensors file nor a state_dict"),
    "a list": (saved([torch.ones(2)]), "no names and tensors"),
    "nothing in it": (saved({}), "no names and tensors"),
    "numbers": (saved({"conv1.weight": 3}), "something else than names and tensors"),
    "a module": (saved(nn.Linear(2, 2)), "state_dict of tensors alone"),
    "a packed archive": (packed(), "packed archive"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_weights_is_refused(what: str, tmp_path: Path) -> None:
    content, said = REFUSED[what]
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(errors.StageFailed, match="holds no weights") as failed:
        weights.read(tmp_path / "w")
    assert failed.value.reason is states.Reason.BAD_INPUT
    assert said in str(failed.value.why)


@pytest.mark.parametrize("modern", [True, False])
def test_code_in_a_file_of_weights_does_not_run(tmp_path: Path, *, modern: bool) -> None:
    made = tmp_path / "made"
    (tmp_path / "w").write_bytes(saved({"a": Command(made)}, _use_new_zipfile_serialization=modern))
    with pytest.raises(errors.StageFailed, match="holds no weights"):
        weights.read(tmp_path / "w")
    assert not made.exists()


def test_another_files_bytes_are_not_even_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w").write_bytes(FORMS["a state_dict"])
    monkeypatch.setattr(weights, "_parsed", lambda _content: pytest.fail("parsed"))
    with pytest.raises(errors.StageFailed, match="is not the file"):
        weights.read(tmp_path / "w", sha256="0" * 8)


def test_a_file_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(errors.StageFailed, match="cannot be read"):
        weights.read(tmp_path / "gone")


def test_a_host_that_cannot_read_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path) -> bytes:
        raise OSError(errno.EIO, "by design")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="by design"):
        weights.read(tmp_path / "w")
