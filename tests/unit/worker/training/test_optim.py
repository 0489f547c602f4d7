from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.worker.training import support
from worker.training import checkpoint, kernels, optim, trainer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[torch.Tensor]:
    """Return the weights after some steps along made-up gradients."""
    source = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=source)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


#: Settings, and PyTorch's optimizer, parameter by parameter, that they stand for.
THEIRS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False)),
    ({"lr": 0.5}, lambda p: torch.optim.Adam(p, lr=0.5, foreach=False)),
    (
        {"weight_decay": 0.1, "decay_norm": True},
        lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1, foreach=False),
    ),
    (
        {"optimizer": "adamw", "weight_decay": 0.1, "decay_norm": True},
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=False),
    ),
    ({"optimizer": "adamw"}, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0, foreach=False)),
    ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, foreach=False)),
    ({"optimizer": "sgd", "momentum": 0}, lambda p: torch.optim.SGD(p, lr=1e-2, foreach=False)),
    (
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "decay_norm": True},
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.8, nesterov=True, weight_decay=0.1, foreach=False),
    ),
]


@pytest.mark.parametrize(("fields", "theirs"), THEIRS)
def test_weights_are_those_of_pytorchs_plain_form_to_the_last_bit(fields: dict[str, Any], theirs: Any) -> None:
    ours, reference = network(), network()
    mine = stepped(ours, optim.build(support.spec(**fields), ours.parameters()))
    wanted = stepped(reference, theirs(reference.parameters()))
    assert all(torch.equal(left, right) for left, right in zip(mine, wanted, strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("decay_norm", [False, True])
def test_norm_and_biases_decay_only_when_told(optimizer: str, *, decay_norm: bool) -> None:
    plain, decayed = network(), network()
    without = stepped(plain, optim.build(support.spec(optimizer=optimizer), plain.parameters()))
    spec = support.spec(optimizer=optimizer, weight_decay=0.1, decay_norm=decay_norm)
    changed = [
        not torch.equal(left, right)
        for left, right in zip(without, stepped(decayed, optim.build(spec, decayed.parameters())), strict=True)
    ]
    assert [parameter.ndim > 1 or decay_norm for parameter in plain.parameters()] == changed


def test_the_form_is_recorded() -> None:
    assert [group["foreach"] for group in optim.build(support.spec(), network().parameters()).param_groups] == [True]


@pytest.fixture
def _memory_is_not_made_clean() -> Iterator[None]:
    """Let memory that nobody has written to hold what is no number: else it may happen to be nothing."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_memory_is_not_made_clean")
@pytest.mark.parametrize("fields", [{}, {"nesterov": True, "weight_decay": 0.1}], ids=str)
def test_a_first_step_that_overflows_leaves_no_trace_in_the_form_for_gpus(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for form in ({"fused": True}, {"foreach": True}):
        monkeypatch.setattr(optim, "_FORM", form)
        model = network()
        optimizer = optim.build(support.spec(optimizer="sgd", **fields), model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for gradient in (float("inf"), 1.0, 2.0):
            scaler.scale(torch.zeros(()))
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            scaler.step(optimizer)
            scaler.update()
        weights.append([parameter.detach() for parameter in model.parameters()])
    for fused, plain in zip(*weights, strict=True):
        torch.testing.assert_close(fused, plain)


def test_neither_does_one_behind_a_checkpoint_without_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trainer.Trainer(
        support.spec(optimizer="sgd"), data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=1
    )
    before = checkpoint.unpacked(b"".join(learner.capture().pieces()))
    monkeypatch.setattr(optim, "_FORM", {"fused": True})
    fused = [group | {"foreach": None, "fused": True} for group in before.state.optimizer]
    learner.restore(replace(before, state=before.state.model_copy(update={"optimizer": fused})))
    kept = learner.optimizer.state_dict()["state"]
    assert len(kept) == len(list(learner.model.parameters()))
    assert not any(each["momentum_buffer"].any() for each in kept.values())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fp16_that_began_on_a_cpu_goes_on_on_a_gpu(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler leaves to the form for GPUs what the checkpoint's cannot do."""
    recipe = support.spec(optimizer=optimizer, precision="fp16")
    images, targets = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])

    def made() -> trainer.Trainer:
        return trainer.Trainer(recipe, data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=9)

    learner = made()
    learner.use(kernels.Kernels(precision="fp16"))
    learner.train_step(images, targets)
    before = checkpoint.unpacked(b"".join(learner.capture().pieces()))
    learner.train_step(images, targets)
    monkeypatch.setattr(optim, "_on_gpu", lambda _: True)
    other = made()
    other.restore(before)
    other.train_step(images, targets)
    assert support.same(dict(learner.model.state_dict()), dict(other.model.state_dict()))
