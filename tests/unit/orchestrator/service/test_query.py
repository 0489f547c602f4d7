"""What is worked out of a job: its word, its remaining time, its curves."""

import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.service import query
from orchestrator.store import base
from tests.contract import parts


@pytest.fixture
def held(store: base.Store) -> jobs.Claim:
    return parts.training(store, spec=specs.parse({"data": "digits", "batch_size": 16}))


def test_a_running_job_is_called_by_its_stage_until_it_is_cancelled(store: base.Store, held: jobs.Claim) -> None:
    assert query.doing(store.get(held.id)) == "training"
    assert query.doing(store.cancel(held.id, actor="ada")) == "cancelling"
    assert query.doing(store.finish(held, jobs.Outcome(kind="cancelled"))) == "cancelled"


@pytest.mark.parametrize(
    ("progress", "seconds"),
    [
        (jobs.Progress(done=10, total=110, unit="steps", rate=32), 50),  # 100 steps of 16 images, 32 images a second
        (jobs.Progress(done=110, total=110, unit="steps", rate=32), 0),
        (jobs.Progress(done=10, total=None, unit="steps", rate=32), None),
        (jobs.Progress(done=10, total=110, unit="steps"), None),
    ],
)
def test_the_rest_of_training_is_steps_times_batch_over_images_a_second(
    store: base.Store, held: jobs.Claim, progress: jobs.Progress, seconds: float | None
) -> None:
    store.record_progress(held, progress)
    assert query.eta(store.get(held.id)) == seconds


def test_the_rest_of_a_download_is_bytes_over_bytes_a_second(store: base.Store) -> None:
    parts.submit(store)
    held = parts.claimed(store, states.Stage.DOWNLOAD)
    store.record_progress(held, jobs.Progress(done=500, total=1500, unit="bytes", rate=100))
    assert query.eta(store.get(held.id)) == 10


def test_a_job_that_does_not_run_has_no_rest(store: base.Store, held: jobs.Claim) -> None:
    store.record_progress(held, jobs.Progress(done=1, total=2, rate=1))
    assert query.eta(store.finish(held, parts.DRAINED)) is None


def test_curves_are_means_of_neighbouring_steps(store: base.Store, held: jobs.Claim) -> None:
    store.record_steps(held, [jobs.StepMetric(step=step, name="loss", value=float(step)) for step in range(1, 8)])
    job = store.get(held.id)
    assert query.CurveReader(store, held.id, points=3).read(job).losses == ((3, 2.0), (6, 5.0), (7, 7.0))
    assert len(query.CurveReader(store, held.id).read(job).losses) == 7


def test_curves_follow_a_training_that_goes_on_and_one_that_goes_back(store: base.Store, held: jobs.Claim) -> None:
    def write(claim: jobs.Claim, first: int, last: int, value: float) -> None:
        store.record_steps(claim, parts.losses(first, last, value=value))

    reader = query.CurveReader(store, held.id)
    write(held, 1, 4, 1.0)
    store.record_checkpoint(held, parts.checkpoint(held, 2))
    assert [step for step, _ in reader.read(store.get(held.id)).losses] == [1, 2, 3, 4]
    write(held, 5, 6, 1.0)
    assert [step for step, _ in reader.read(store.get(held.id)).losses] == [1, 2, 3, 4, 5, 6]
    again = parts.resume(store, held, step=2)
    write(again, 3, 3, 2.0)
    assert reader.read(store.get(held.id)).losses == ((1, 1.0), (2, 1.0), (3, 2.0))


def test_what_is_useful_next_depends_on_the_state(store: base.Store, held: jobs.Claim) -> None:
    running = store.get(held.id)
    assert list(query.useful(running)) == [f"orch watch {held.id}", f"orch cancel {held.id}"]
    failed = store.finish(held, parts.failed(states.Reason.DIVERGED))
    assert list(query.useful(failed)) == [f"orch logs {held.id}", f"orch retry {held.id}"]
