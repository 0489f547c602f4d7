"""`--preemptible`, and what is said of a training that makes room for an urgent job."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from orchestrator import config
from orchestrator.cli import jobpage
from orchestrator.core import jobs, states
from orchestrator.service import query
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch, living_worker

Stage = states.Stage


@pytest.fixture
def store(migrated: config.Settings) -> Iterator[sql.SqlStore]:
    """The store by the clock that the commands go by."""
    with closing(sql.open_store(migrated)) as opened:
        yield opened


def test_both_sides_of_a_yield_are_told(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    store.register(living_worker(artifact_root=parts.ROOT))
    long = orch("submit", "--data", "digits", "-q", "--preemptible").out.strip()
    urgent = orch("submit", "--data", "digits", "-q", "--priority", "5").out.strip()
    for _ in range(2):
        store.finish(parts.claimed(store, Stage.DOWNLOAD), parts.DONE)
    store.pause(urgent, actor="ada")
    held = parts.claimed(store, Stage.TRAIN)
    assert held.id == long
    store.resume(urgent, actor="ada")
    assert store.make_room(actor="worker-a", stay=timedelta()) == 1
    assert orch("why", urgent).rows[0][-1] == (
        f"It is queued for train: it is next in line. {long} makes room for it, after a checkpoint at its next step."
    )
    assert orch("why", long).rows[0][-1] == (
        f"It does not wait: it makes room for {urgent} on worker-a, and goes on later."
    )
    listed = {row[0]: row[1] for row in orch("list").rows}
    assert listed == {long: "yielding", urgent: "queued"}
    jobpage.show(query.report(store, long), settings)
    shown = capsys.readouterr().out
    assert f"yielding to {urgent}" in shown
    assert "queued with  preemptible" in " ".join(shown.split("\n"))
    store.finish(held, jobs.Outcome(kind="yielded"))
    assert [event.detail for event in store.events(long)[-2:]] == [
        f"to {urgent}, whose priority is 5, not 0",
        f"to {urgent}",
    ]
    assert parts.claimed(store, Stage.TRAIN).id == urgent
