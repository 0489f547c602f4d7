"""Jobs go to workers that have what they demand, and to no others."""

from typing import Any

import pytest

from orchestrator.core import jobs, resources, specs, states
from orchestrator.store import sql
from tests.contract import parts

STAGE = states.Stage

A100 = resources.Device(id="GPU-0", kind="gpu", name="NVIDIA A100", memory=42 * 10**9)
T4 = resources.Device(id="GPU-1", kind="gpu", name="Tesla T4", memory=16 * 10**9)
BIG, SMALL = resources.Offer(devices=(A100,), labels=("lab=a",)), resources.Offer(devices=(T4,))


def waiting(store: sql.SqlStore, stage: states.Stage = STAGE.TRAIN, **given: Any) -> jobs.Job:
    """Return a job that waits for a stage, with such a demand."""
    fields = {name: given.pop(name) for name in ("user", "priority", "spec") if name in given}
    job = parts.submit(store, demand=resources.parse(**given), **fields)
    while (now := store.get(job.id)).stage is not stage:
        held = parts.claimed(store, now.stage, offer=BIG)
        assert held.id == job.id
        store.finish(held, parts.DONE)
    return job


def test_a_demand_is_kept_as_it_was_given(any_store: sql.SqlStore) -> None:
    wanted = resources.parse(device="A100", gpu_memory="40GB", labels=["lab=a"])
    job = parts.submit(any_store, demand=wanted, spec=specs.JobSpec(gpus=2))
    assert any_store.get(job.id).demand == job.demand == resources.of(job.demand.text)
    assert (job.demand.gpus, job.demand.device) == (2, "a100")
    assert job.spec_hash == parts.submit(any_store, spec=specs.JobSpec(gpus=2)).spec_hash  # where it runs is no recipe


def test_each_worker_takes_what_it_can_run_in_the_order_of_the_rule(any_store: sql.SqlStore) -> None:
    wanted = [{"gpu_memory": "40GB"}, {"device": "t4"}, {}, {"device": "gpu"}, {"device": "cpu"}]
    big, small, any_one, gpu, cpu = (waiting(any_store, STAGE.DOWNLOAD, **given).id for given in wanted)
    for _ in wanted:  # every host downloads
        any_store.finish(parts.claimed(any_store, STAGE.DOWNLOAD, offer=SMALL), parts.DONE)
    taken = [parts.claim(any_store, STAGE.TRAIN, offer=offer) for offer in (SMALL, SMALL, SMALL, SMALL, BIG, BIG)]
    assert [held and held.id for held in taken] == [small, any_one, gpu, None, big, None]
    assert parts.claimed(any_store, STAGE.TRAIN).id == cpu


def test_priority_counts_among_ones_jobs_of_all_demands(any_store: sql.SqlStore) -> None:
    plain = waiting(any_store).id
    urgent = waiting(any_store, device="a100", priority=5).id
    last = waiting(any_store, device="gpu", priority=-5).id
    assert [parts.claimed(any_store, STAGE.TRAIN, offer=BIG).id for _ in range(3)] == [urgent, plain, last]


def test_users_take_turns_whatever_their_jobs_demand(any_store: sql.SqlStore) -> None:
    for user in ("ada", "ada", "bob"):
        waiting(any_store, user=user, device="a100" if user == "ada" else None)
    taken = [parts.claimed(any_store, STAGE.TRAIN, offer=BIG).job.user for _ in range(3)]
    assert taken == ["ada", "bob", "ada"]


def test_an_evaluation_needs_one_device_of_the_kind(any_store: sql.SqlStore) -> None:
    job = waiting(any_store, spec=specs.JobSpec(gpus=1), device="a100")
    any_store.finish(parts.claimed(any_store, STAGE.TRAIN, offer=BIG), parts.DONE)
    assert parts.claim(any_store, STAGE.EVALUATE, offer=SMALL) is None
    assert parts.claimed(any_store, STAGE.EVALUATE, offer=BIG).id == job.id


@pytest.mark.parametrize(("offer", "takes"), [(BIG, True), (SMALL, False)])
def test_labels_bind_a_job_to_workers_that_have_all(
    any_store: sql.SqlStore, offer: resources.Offer, takes: bool
) -> None:
    waiting(any_store, labels=["lab=a"])
    assert (parts.claim(any_store, STAGE.TRAIN, offer=offer) is not None) is takes
