import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator import config
from orchestrator.core import states
from orchestrator.queue import dispatch, embedded
from orchestrator.service import bell
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no broker that is away."""
    monkeypatch.setattr(bell, "PATIENCE", 60)


@pytest.fixture
def with_broker(tmp_path: Path) -> Iterator[config.Settings]:
    settings = config.Settings(home=tmp_path)
    embedded.ensure(settings)
    yield settings
    embedded.stop(settings)


def test_a_prepared_bell_rings_once(with_broker: config.Settings) -> None:
    with bell.prepared(with_broker) as ring:
        assert ring(states.Stage.DOWNLOAD) is None
    assert dispatch.Doorbell(with_broker).waiting([states.Stage.DOWNLOAD, states.Stage.TRAIN]) == {
        states.Stage.DOWNLOAD: 1,
        states.Stage.TRAIN: 0,
    }


def test_a_bell_that_is_not_wanted_rings_nothing_and_is_gone(with_broker: config.Settings) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(ZeroDivisionError), bell.prepared(with_broker):
        raise ZeroDivisionError
    until(lambda: {child.pid for child in psutil.Process().children()} <= before)
    assert dispatch.Doorbell(with_broker).waiting([states.Stage.DOWNLOAD]) == {states.Stage.DOWNLOAD: 0}


def test_a_broker_that_is_away_is_explained_across_the_processes(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path)
    with bell.prepared(settings) as ring:
        away = ring(states.Stage.TRAIN)
    assert away is not None
    assert str(tmp_path) in str(away.why)
    assert away.hint is not None


def test_a_bell_that_is_stuck_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "PATIENCE", 0.2)
    monkeypatch.setattr(bell, "ring", lambda *_: time.sleep(60))
    began = time.monotonic()
    with bell.prepared(config.Settings(home=tmp_path)) as ring:
        away = ring(states.Stage.TRAIN)
    assert time.monotonic() - began < 50
    assert away is not None
