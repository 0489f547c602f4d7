"""Each option of the training step: same seed, on and off, and the named quantity differs as its formula says."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.worker.training import support
from worker.models import zoo
from worker.training import ema, mixing, schedules, trainer

CLASSES = ("a", "b", "c")
STEPS = 6


def batch(number: int, images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(number)
    return torch.randn(images, 3, 8, 8, generator=source), torch.randint(3, (images,), generator=source)


def learner(**fields: Any) -> trainer.Trainer:
    spec = support.spec(**{"epochs": 2} | fields)
    cpu = torch.device("cpu")
    return trainer.Trainer(spec, data_hash="d", classes=CLASSES, device=cpu, steps_per_epoch=STEPS // 2)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def gradients(one: trainer.Trainer) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in one.model.parameters() if parameter.grad is not None]


def norm(parts: list[torch.Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in parts]).norm())


class Plain(nn.Module):
    """A network without BatchNorm."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.conv(images).relu().mean(dim=(2, 3)))
        return logits


def test_the_rate_of_each_step_is_the_schedules_and_is_told() -> None:
    one = learner(schedule="one-cycle", optimizer="sgd")
    used = []
    for number in range(STEPS):
        one.train_step(*batch(number))
        used.append(one.optimizer.param_groups[0]["lr"])
    assert used == [schedules.rate(one.spec, step=step, total=STEPS) for step in range(STEPS)]
    assert [value for _, name, value in one.settle() if name == "lr"] == used
    constant = learner()
    constant.train_step(*batch(0))
    assert [name for _, name, _ in constant.settle()] == ["loss"]


def test_the_average_is_the_recurrence_by_hand_and_changes_no_step() -> None:
    plain, one = learner(), learner(ema=0.3)
    wanted = weights(one.model)
    for number in range(STEPS):
        plain.train_step(*batch(number))
        one.train_step(*batch(number))
        kept = min(0.3, (2 + number) / (11 + number)) if number else 0.0
        for name, value in one.model.state_dict().items():
            wanted[name] = kept * wanted[name] + (1 - kept) * value if value.is_floating_point() else value.clone()
    assert support.same(weights(one.model), weights(plain.model))
    found = weights(one.network)
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in wanted.items())
    assert not support.same(found, weights(one.model))
    assert plain.network is plain.model


def test_an_averages_decay_grows_to_what_was_asked() -> None:
    assert [round(ema.decay(0.9, step=step), 3) for step in (1, 2, 10, 80, 81, 1000)] == [0, 0.25, 0.55, 0.9, 0.9, 0.9]


def test_the_average_is_that_of_each_tensor_to_the_last_bit() -> None:
    network = learner().model
    average, plain = ema.Average(network, 0.9), copy.deepcopy(network)
    source = torch.Generator().manual_seed(1)
    for step in range(1, 5):
        for value in network.state_dict().values():
            value.add_(torch.randn(value.shape, generator=source).to(value.dtype))
        average.update(network, step=step)
        for kept, value in zip(plain.state_dict().values(), network.state_dict().values(), strict=True):
            kept.lerp_(value, 1 - ema.decay(0.9, step=step)) if kept.is_floating_point() else kept.copy_(value)
    assert support.same(dict(average.network.state_dict()), dict(plain.state_dict()))


def test_clipping_bounds_the_norm_and_keeps_the_direction() -> None:
    plain, one, loose = learner(), learner(clip_norm=0.01), learner(clip_norm=1e6)
    for each in (plain, one, loose):
        each.train_step(*batch(0))
    before = norm(gradients(plain))
    assert before > 0.01
    assert norm(gradients(one)) == pytest.approx(0.01, rel=1e-4)
    for left, right in zip(gradients(one), gradients(plain), strict=True):
        assert torch.allclose(left, right * 0.01 / before, atol=1e-6)
    assert support.same(weights(loose.model), weights(plain.model))
    assert [round(value, 4) for _, name, value in one.settle() if name == "grad_norm"] == [round(before, 4)]


def test_a_gradient_that_is_not_finite_is_told_as_such() -> None:
    one = learner(clip_norm=1.0)
    first = next(one.model.parameters())
    first.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]  # torch's lack
    one.train_step(*batch(0))
    assert one.settle() == ()
    with pytest.raises(Exception, match="gradient of step 1 is not finite"):
        one.check_finite()


@pytest.mark.parametrize(("images", "parts"), [(8, 4), (7, 4), (9, 4)])  # even, a smaller last batch, one that joins
@pytest.mark.parametrize("fields", [{}, {"mixup": 0.4}, {"label_smoothing": 0.1}])
def test_accumulated_without_batch_norm_is_the_large_batch(
    monkeypatch: pytest.MonkeyPatch, images: int, parts: int, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(zoo, "build", lambda *_: Plain())
    small, large = learner(batch_size=parts, accumulate=2, **fields), learner(batch_size=16, **fields)
    for number in range(3):
        small.train_step(*batch(number, images))
        large.train_step(*batch(number, images))
        for left, right in zip(gradients(small), gradients(large), strict=True):
            assert torch.allclose(left, right, atol=1e-6)
    assert [value for _, _, value in small.settle()] == pytest.approx(
        [value for _, _, value in large.settle()], rel=1e-5
    )
    assert small.sums.loss == pytest.approx(large.sums.loss, rel=1e-5)
    assert (small.sums.correct, small.sums.images) == (large.sums.correct, large.sums.images)


def test_accumulated_with_batch_norm_is_not() -> None:
    small, large = learner(batch_size=4, accumulate=2), learner(batch_size=8)
    for each in (small, large):
        each.train_step(*batch(0, 8))
    assert not all(
        torch.allclose(left, right, atol=1e-4) for left, right in zip(gradients(small), gradients(large), strict=True)
    )


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    plain, one = learner(), learner(label_smoothing=0.3)
    logits = copy.deepcopy(one.model)(batch(0)[0])
    spread = functional.one_hot(batch(0)[1], 3) * 0.7 + 0.3 / 3
    for each in (plain, one):
        each.train_step(*batch(0))
    wanted = -(spread * logits.detach().log_softmax(1)).sum(1).mean()
    assert one.settle()[0][2] == pytest.approx(float(wanted), rel=1e-5)
    assert plain.settle()[0][2] != pytest.approx(float(wanted), rel=1e-3)


def test_mixup_blends_pictures_and_labels_by_one_share() -> None:
    images, targets = batch(0)
    mixed, labels = mixing.Mixer(support.spec(mixup=0.5), 3)(images, targets, step=7)
    truth = functional.one_hot(targets, 3).float()
    share = float(((mixed - images.roll(1, 0)) / (images - images.roll(1, 0))).median())
    assert 0 < share < 1
    assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-5)
    assert torch.allclose(labels, share * truth + (1 - share) * truth.roll(1, 0), atol=1e-5)


def test_cutmix_pastes_a_box_and_shares_the_labels_by_its_area() -> None:
    images, targets = batch(0)
    mixed, labels = mixing.Mixer(support.spec(cutmix=1.0), 3)(images, targets, step=1)
    own = (mixed == images).all(dim=1)
    assert bool((own | (mixed == images.roll(1, 0)).all(dim=1)).all())
    share = float(own.float().mean())
    assert 0 < share < 1
    truth = functional.one_hot(targets, 3).float()
    assert torch.allclose(labels, share * truth + (1 - share) * truth.roll(1, 0), atol=1e-5)


def test_what_is_mixed_depends_on_seed_and_step_alone() -> None:
    def mixed(seed: int, step: int) -> bytes:
        mixer = mixing.Mixer(support.spec(mixup=0.4, cutmix=1.0, seed=seed), 3)
        return mixer(*batch(0), step=step)[0].numpy().tobytes()

    torch.manual_seed(1)
    first, before = mixed(0, 1), torch.get_rng_state()
    torch.rand(3)
    assert mixed(0, 1) == first
    assert len({mixed(0, step) for step in range(8)} | {mixed(1, step) for step in range(8)}) == 16
    torch.set_rng_state(before)
    mixed(0, 2)
    assert torch.equal(torch.get_rng_state(), before)  # dropout's numbers stay what they were


def test_with_both_on_each_has_its_turn() -> None:
    mixer = mixing.Mixer(support.spec(mixup=0.4, cutmix=1.0), 3)
    images, targets = batch(0)
    pasted = [bool((mixer(images, targets, step=step)[0] == images).all(1).any()) for step in range(20)]
    assert 3 < sum(pasted) < 17


def test_of_mixed_labels_the_larger_share_counts_as_the_truth() -> None:
    one = learner(mixup=0.4)
    images, targets = batch(0)
    logits = copy.deepcopy(one.model)
    mixed, labels = one.mix(images, targets, step=0)
    wanted = int((logits(mixed).argmax(1) == labels.argmax(1)).sum())
    one.train_step(images, targets)
    one.settle()
    assert one.sums.correct == wanted
