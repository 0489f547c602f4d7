"""When a slot asks for jobs, and when it does not."""

import threading
from collections.abc import Callable
from unittest import mock

import pytest

from orchestrator.core import states
from tests.contract import parts
from tests.support.waiting import until
from worker.permits import Permits
from worker.slot import Slot


@pytest.fixture
def store() -> mock.Mock:
    return mock.Mock(**{"claim.return_value": None})


def _slot(store: mock.Mock, ready: Callable[[], bool], draining: threading.Event) -> Slot:
    return Slot(
        store=store,
        supervisor=mock.Mock(),
        worker=parts.identity(),
        device="CPU",
        artifact_root="root",
        stages=tuple(states.Stage),
        permits=Permits(None, store=store, worker="worker-a"),
        ring=lambda _: None,
        ready=ready,
        draining=draining,
    )


def test_nothing_is_claimed_before_it_can_be_started(store: mock.Mock) -> None:
    ready, draining, looked = threading.Event(), threading.Event(), threading.Event()

    def asked() -> bool:
        looked.set()
        return ready.is_set()

    serving = threading.Thread(target=_slot(store, asked, draining).serve)
    serving.start()
    assert looked.wait(10)
    assert not store.claim.called
    ready.set()
    until(lambda: store.claim.called)
    serving.join(10)
    assert not serving.is_alive()


def test_a_drain_ends_the_wait(store: mock.Mock) -> None:
    draining = threading.Event()
    serving = threading.Thread(target=_slot(store, lambda: False, draining).serve)
    serving.start()
    draining.set()
    serving.join(10)
    assert not serving.is_alive()
    assert not store.claim.called
