"""Every line of a job's history says who did it: a person, the worker that held the job, or who took it back."""

from orchestrator.core import jobs, states
from orchestrator.store import base
from tests.conftest import HandClock
from tests.contract import parts

#: What happens to the job below, and who does it.
HISTORY = [
    ("submitted", "ada"),
    ("claimed", "worker-a"),
    ("stage_done", "worker-a"),
    ("claimed", "worker-a"),
    ("checkpoint_damaged", "worker-a"),
    ("pause_requested", "bob"),
    ("pause_taken_back", "cy"),
    ("pause_requested", "bob"),
    ("paused", "worker-a"),
    ("resumed", "cy"),
    ("claimed", "worker-b"),
    ("drained", "worker-b"),
    ("paused", "dan"),
    ("resumed", "eve"),
    ("claimed", "worker-b"),
    ("retried", "worker-b"),
    ("claimed", "worker-c"),
    ("lost", "worker-a"),
    ("claimed", "worker-c"),
    ("failed", "worker-c"),
    ("new_run", "fay"),
    ("cancelled", "gus"),
    ("new_run", "fay"),
    ("claimed", "worker-d"),
    ("cancel_requested", "gus"),
    ("cancelled", "worker-d"),
    ("new_run", "fay"),
    ("claimed", "worker-e"),
    ("stage_done", "worker-e"),
    ("claimed", "worker-f"),
    ("succeeded", "worker-f"),
]


def history(store: base.Store, job_id: str) -> list[tuple[str, str]]:
    return [(event.kind, event.actor) for event in store.events(job_id)]


def test_every_kind_of_event_names_who_did_it(any_store: base.Store, clock: HandClock) -> None:
    held = parts.training(any_store)
    any_store.note(held, kind="checkpoint_damaged", detail="its sha256 is another")
    any_store.pause(held.id, actor="bob")
    any_store.resume(held.id, actor="cy")
    any_store.pause(held.id, actor="bob")
    any_store.finish(held, jobs.Outcome(kind="paused"))
    any_store.resume(held.id, actor="cy")
    any_store.finish(parts.claimed(any_store, worker="worker-b"), parts.DRAINED)
    any_store.pause(held.id, actor="dan")
    any_store.resume(held.id, actor="eve")
    any_store.finish(parts.claimed(any_store, worker="worker-b"), parts.failed(states.Reason.INTERNAL))
    clock.move(hours=1)
    parts.claimed(any_store, worker="worker-c")
    (lease,) = any_store.leases()
    any_store.take_back(lease, actor="worker-a", detail="its lease has run out")
    clock.move(hours=1)
    any_store.finish(parts.claimed(any_store, worker="worker-c"), parts.failed(states.Reason.BAD_INPUT))
    any_store.retry(held.id, actor="fay")
    any_store.cancel(held.id, actor="gus")
    any_store.retry(held.id, actor="fay")
    again = parts.claimed(any_store, worker="worker-d")
    any_store.cancel(held.id, actor="gus")
    any_store.finish(again, jobs.Outcome(kind="cancelled"))
    any_store.retry(held.id, actor="fay")
    any_store.finish(parts.claimed(any_store, worker="worker-e"), parts.DONE)
    any_store.finish(parts.claimed(any_store, worker="worker-f"), parts.DONE)
    assert history(any_store, held.id) == HISTORY
