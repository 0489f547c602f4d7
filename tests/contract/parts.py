"""Short words for what the contract's tests do again and again."""

from datetime import datetime
from typing import Any

from orchestrator.core import gangs, jobs, provenance, resources, specs, states
from orchestrator.store import base, jobmodels, sql

ROOT = "root-a"
DONE = jobs.Outcome(kind="done")
DRAINED = jobs.Outcome(kind="drained")
PAUSED = jobs.Outcome(kind="paused")
ENVIRONMENT = provenance.Environment(
    versions={"orch": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1"},
    device="cpu",
    cpu="a processor",
    instructions="AVX2",
    threads=2,
    layout="contiguous",
    precision="fp32",
    seed=0,
)
ALL_STAGES = tuple(states.Stage)


def identity(name: str = "worker-a", *, host: str = "host-a", pid: int = 100) -> jobs.WorkerIdentity:
    return jobs.WorkerIdentity(
        id=name, host=host, boot_id="boot", pid_namespace="4026531836", pid=pid, pid_started=1234.5
    )


def worker(me: jobs.WorkerIdentity, *, now: datetime, root: str = "root") -> jobs.Worker:
    """Return a worker with one slot as it registers."""
    return jobs.Worker(
        identity=me,
        state=states.WorkerState.ACTIVE,
        devices=("CPU",),
        versions={},
        artifact_root=root,
        started_at=now,
        beat=0,
        beat_at=now,
    )


def new_job(**fields: Any) -> jobs.NewJob:
    return jobs.NewJob(**{"spec": specs.JobSpec(), "user": "ada", **fields})


def submit(store: base.Store, **fields: Any) -> jobs.Job:
    return store.submit(new_job(**fields))[0]


def claim(
    store: base.Store,
    *stages: states.Stage,
    worker: str = "worker-a",
    root: str = ROOT,
    offer: resources.Offer = resources.ONE_CPU,
    pool: gangs.Pool | None = None,
) -> jobs.Claim | None:
    return store.claim(
        worker=identity(worker),
        device="cpu",
        stages=stages or ALL_STAGES,
        artifact_root=root,
        pool=pool or gangs.Alone(offer),
    )


def claimed(store: base.Store, *stages: states.Stage, **by: Any) -> jobs.Claim:
    """Claim a job that must be there."""
    held = claim(store, *stages, **by)
    assert held is not None
    return held


def training(store: base.Store, **fields: Any) -> jobs.Claim:
    """Submit a job and bring it to its first training attempt."""
    submit(store, **fields)
    store.finish(claimed(store, states.Stage.DOWNLOAD), DONE)
    held = claimed(store, states.Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    return held


def resume(store: base.Store, before: jobs.Claim, *, step: int, ended: jobs.Outcome = DRAINED) -> jobs.Claim:
    """End an attempt, and go on from the checkpoint at `step` in the next one."""
    store.finish(before, ended)
    held = claimed(store, states.Stage.TRAIN)
    source = next((point.attempt for point in held.checkpoints if point.step == step), None)
    store.record_resumed(held, attempt=source, step=step)
    return held


def checkpoint(held: jobs.Claim, step: int, *, accuracy: float | None = None, epoch: int = 0) -> jobs.Checkpoint:
    return jobs.Checkpoint(
        attempt=held.attempt,
        epoch=epoch,
        step=step,
        path=f"jobs/{held.id}/{held.attempt}/step-{step}",
        bytes=1000,
        sha256=f"{step:064x}",
        accuracy=accuracy,
    )


def epoch_rows(epoch: int, *, accuracy: float = 0.5) -> list[jobs.EpochMetric]:
    return [
        jobs.EpochMetric(epoch=epoch, split=split, loss=0.7, accuracy=accuracy, images=10, seconds=1.5, lr=1e-4)
        for split in ("val", "train")
    ]


def losses(first: int, last: int, *, value: float = 0.5) -> list[jobs.StepMetric]:
    return [jobs.StepMetric(step=step, name="loss", value=value) for step in range(first, last + 1)]


def failed(reason: states.Reason) -> jobs.Outcome:
    return jobs.Outcome(kind="failed", reason=reason, error=f"it was {reason}", hint="look at the log")


def kinds(store: base.Store, job_id: str) -> list[str]:
    return [event.kind for event in store.events(job_id)]


def overwrite(store: sql.SqlStore, job_id: str, **values: Any) -> None:
    """Change a job's row behind the store's back."""
    changing = jobmodels.jobs.update().where(jobmodels.jobs.c.id == job_id).values(values)
    store.database.write(lambda connection: connection.execute(changing))
