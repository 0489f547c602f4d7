"""What the tests beside a real broker share."""

import pytest

from orchestrator.queue import broker
from orchestrator.service import health


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no broker that is silent."""
    monkeypatch.setattr(broker, "CLIENT", broker.Patience(connect=60, reply=60))
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 60)
