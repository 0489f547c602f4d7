"""What must be true of a home when its case is over, whatever happened in it."""

import contextlib
import functools
import hashlib
import time
from dataclasses import dataclass

from orchestrator.core import jobs
from orchestrator.core.states import JobState
from orchestrator.service import audit
from orchestrator.store import base, sql
from tests.faults import homes, lane
from tests.support.waiting import patiently


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training came to."""

    weights: str  #: sha256 of the last checkpoint's tensors: network, optimizer and random generators
    losses: tuple[tuple[int, float], ...]  #: of each step
    epochs: tuple[tuple[int, str, float, float], ...]
    accuracy: float
    confusion: str


def check(ended: homes.Home) -> None:
    """Raise AssertionError where something that is promised is not true."""
    _check_processes(ended)
    assert "Exception in thread" not in ended.log("node"), "a thread of the node has died"
    with contextlib.closing(patiently(sql.open_store, ended.settings)) as store:
        found = patiently(audit.audit, ended.settings, store, promised=ended.promised)
        assert found == [], "\n".join(f"{finding.kind} {finding.job}: {finding.sentence}" for finding in found)
        found_jobs = store.jobs(jobs.JobFilter())
        states = {job.id: str(job.state) for job in found_jobs}
        assert states == {job_id: state for job_id, state in ended.promised.items() if state is not None}
        for job in found_jobs:
            # What `auto` picks is a matter of timing, and another layout has other last bits.
            if job.state is JobState.SUCCEEDED and job.spec.layout != "auto":
                calm = undisturbed(ended.shared, job.spec.weights, job.spec.epochs, job.spec.gpus)
                assert _result(ended, store, job.id) == calm, "other numbers"


def undisturbed(shared: lane.Lane, weights: str | None = None, epochs: int = homes.EPOCHS, gpus: int = 1) -> Result:
    """Return what so long a training comes to on so many devices from these weights when nothing happens to it.

    Its own weights are what the lane's processes take for those of ImageNet.
    """
    return _undisturbed(shared, weights, epochs, gpus)


@functools.cache
def _undisturbed(shared: lane.Lane, weights: str | None, epochs: int, gpus: int) -> Result:
    calm = homes.Home(shared, None, slots_per_device=gpus)
    try:
        job_id = calm.submit(weights=weights, epochs=epochs, gpus=gpus)
        assert calm.ends(job_id) == "succeeded", calm.told()
        calm.leave()
        with contextlib.closing(sql.open_store(calm.settings)) as store:
            if (weights, epochs, gpus) == (None, homes.EPOCHS, 1):
                shared.serve_weights(calm.settings.artifact_dir / store.checkpoints(job_id)[0].path)
            return _result(calm, store, job_id)
    finally:
        calm.remove()


def _result(ended: homes.Home, store: base.Store, job_id: str) -> Result:
    newest, made = store.checkpoints(job_id)[0], store.evaluation(job_id)
    assert made is not None
    content = (ended.settings.artifact_dir / newest.path).read_bytes()
    return Result(
        # Behind the header, whose JSON names the data's URL.
        weights=hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest(),
        losses=tuple((row.step, row.value) for row in store.steps(job_id)),
        epochs=tuple((row.epoch, str(row.split), row.loss, row.accuracy) for row in store.epochs(job_id)),
        accuracy=made.accuracy,
        confusion=str(made.confusion),
    )


def _check_processes(ended: homes.Home) -> None:
    deadline = time.monotonic() + 60
    while left := ended.processes():
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.02)
