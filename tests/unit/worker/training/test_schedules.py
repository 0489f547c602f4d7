"""Every course of the learning rate as a table: by hand, and against PyTorch's own schedulers."""

from typing import Any

import pytest
import torch

from tests.unit.worker.training import support
from worker.training import schedules


def course(total: int, **fields: Any) -> list[float]:
    spec = support.spec(**{"lr": 1.0, "epochs": 10} | fields)
    return [schedules.rate(spec, step=step, total=total) for step in range(total)]


#: Steps, settings, and the rate of each step at a learning rate of 1 over ten epochs.
TABLE: list[tuple[int, dict[str, Any], list[float]]] = [
    (4, {}, [1, 1, 1, 1]),
    (4, {"warmup_epochs": 5}, [0.5, 1, 1, 1]),  # the last step of the warm-up has the rate
    (8, {"schedule": "step"}, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
    (6, {"schedule": "step", "lr_steps": (1 / 3, 2 / 3), "lr_gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
    (8, {"schedule": "step", "warmup_epochs": 2.5}, [0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),  # shares of the whole
    (4, {"schedule": "step", "lr_steps": ()}, [1, 1, 1, 1]),
    (4, {"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
    (4, {"schedule": "cosine", "lr_end": 0.5}, [1, 0.926777, 0.75, 0.573223]),
    (6, {"schedule": "cosine", "warmup_epochs": 10 / 3}, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    (1, {"schedule": "cosine"}, [1]),
    (1, {"schedule": "one-cycle"}, [1]),
    (2, {"schedule": "one-cycle"}, [1, 0.04 / 1e4]),
    (10, {"schedule": "one-cycle", "warmup_epochs": 9}, [*(step / 9 for step in range(1, 10)), 1]),
]


@pytest.mark.parametrize(("total", "fields", "rates"), TABLE)
def test_the_table(total: int, fields: dict[str, Any], rates: list[float]) -> None:
    assert course(total, **fields) == pytest.approx(rates, abs=1e-6)


def _theirs(make: Any, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("total", [7, 30, 101])
def test_they_are_pytorchs(total: int) -> None:
    schedulers = torch.optim.lr_scheduler
    cosine = _theirs(lambda optimizer: schedulers.CosineAnnealingLR(optimizer, total, eta_min=0.1), total)
    assert course(total, schedule="cosine", lr_end=0.1) == pytest.approx(cosine)
    cycle = _theirs(
        lambda optimizer: schedulers.OneCycleLR(optimizer, 1.0, total_steps=total, cycle_momentum=False), total
    )
    assert course(total, schedule="one-cycle") == pytest.approx(cycle)
    falls = [round(total / 2), round(total * 0.75)]
    assert course(total, schedule="step") == pytest.approx(
        _theirs(lambda optimizer: schedulers.MultiStepLR(optimizer, falls), total)
    )


def test_a_constant_rate_is_the_very_number() -> None:
    assert set(course(7, lr=0.1)) == {0.1}
