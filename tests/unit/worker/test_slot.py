"""When a slot asks for jobs, and when it does not."""

import threading
from collections.abc import Callable
from unittest import mock

import pytest

from orchestrator import errors
from orchestrator.core import nearness, states
from tests.contract import parts
from tests.support.waiting import until
from worker.permits import Permits
from worker.slot import Slot


@pytest.fixture
def store() -> mock.Mock:
    return mock.Mock(**{"claim.return_value": None})


def _slot(
    store: mock.Mock,
    ready: Callable[[], bool],
    draining: threading.Event,
    ring: Callable[[states.Stage], None] = lambda _: None,
) -> Slot:
    return Slot(
        store=store,
        supervisor=mock.Mock(),
        worker=parts.identity(),
        device="CPU",
        artifact_root="root",
        stages=tuple(states.Stage),
        permits=Permits(None, store=store, worker="worker-a"),
        ring=ring,
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
    assert looked.wait(60)
    assert not store.claim.called
    ready.set()
    until(lambda: store.claim.called)
    serving.join(60)
    assert not serving.is_alive()


def test_a_drain_ends_the_wait(store: mock.Mock) -> None:
    draining = threading.Event()
    serving = threading.Thread(target=_slot(store, lambda: False, draining).serve)
    serving.start()
    draining.set()
    serving.join(60)
    assert not serving.is_alive()
    assert not store.claim.called


@pytest.mark.parametrize("stage", [states.Stage.TRAIN, None])
def test_another_host_hears_first_where_the_data_is_there(store: mock.Mock, stage: states.Stage | None) -> None:
    store.for_another.return_value = stage
    rung: list[states.Stage] = []
    draining = mock.Mock(**{"is_set.return_value": False})
    draining.wait.side_effect = lambda _: store.claim.assert_not_called()
    _slot(store, lambda: True, draining, rung.append).hear()
    assert rung == ([stage] if stage else [])
    assert draining.wait.call_args_list == ([mock.call(nearness.HEAD_START)] if stage else [])
    assert store.for_another.call_count == 1  # and then it takes whatever is next
    assert store.claim.called


@pytest.mark.parametrize("error", [errors.DatabaseUnavailable(), RuntimeError()])
def test_who_cannot_know_serves_at_once(store: mock.Mock, error: Exception) -> None:
    store.for_another.side_effect = error
    _slot(store, lambda: True, threading.Event()).hear()
    assert store.claim.called
