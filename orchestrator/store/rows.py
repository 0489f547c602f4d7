"""Rows to domain objects: what leaves the store is frozen and knows nothing of SQL."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Row

from orchestrator.core import jobs, specs

_PLAIN_JOB = tuple(field.name for field in fields(jobs.Job) if field.name not in {"user", "tags", "spec", "progress"})
_ATTEMPT = tuple(field.name for field in fields(jobs.Attempt))
_EVENT = tuple(field.name for field in fields(jobs.Event))
_IDENTITY = tuple(field.name for field in fields(jobs.WorkerIdentity))


def job(row: Row[Any]) -> jobs.Job:
    """Return the job of a row of `jobs`."""
    return jobs.Job(
        user=row.submitted_by,
        tags=tuple(row.tags),
        spec=_spec(row.spec, row.spec_version),
        progress=jobs.Progress(
            done=row.progress_done,
            total=row.progress_total,
            unit=row.progress_unit,
            epoch=row.progress_epoch,
            epochs=row.progress_epochs,
            rate=row.progress_rate,
            at=row.progress_at,
        ),
        **_picked(row, _PLAIN_JOB),
    )


def attempt(row: Row[Any]) -> jobs.Attempt:
    """Return the attempt of a row of `attempts`."""
    return jobs.Attempt(**_picked(row, _ATTEMPT))


def event(row: Row[Any]) -> jobs.Event:
    """Return the event of a row of `events`."""
    return jobs.Event(**_picked(row, _EVENT))


def epoch_metric(row: Row[Any]) -> jobs.EpochMetric:
    """Return the metric of a row of `epoch_metrics`."""
    return jobs.EpochMetric(
        epoch=row.epoch,
        split=row.split,
        loss=row.loss,
        accuracy=row.accuracy,
        images=row.images,
        seconds=row.seconds,
        lr=row.lr,
        attempt=row.attempt,
    )


def step_metric(row: Row[Any]) -> jobs.StepMetric:
    """Return the metric of a row of `step_metrics`."""
    return jobs.StepMetric(step=row.step, name=row.name, value=row.value, attempt=row.attempt)


def checkpoint(row: Row[Any]) -> jobs.Checkpoint:
    """Return the checkpoint of a row of `checkpoints`."""
    return jobs.Checkpoint(
        attempt=row.attempt,
        epoch=row.epoch,
        step=row.step,
        path=row.path,
        bytes=row.bytes,
        sha256=row.sha256,
        best=row.best,
        last=row.last,
        resumable=row.resumable,
        accuracy=row.accuracy,
        created_at=row.created_at,
    )


def dataset(row: Row[Any]) -> jobs.Dataset:
    """Return the data set of a row of `datasets`."""
    return jobs.Dataset(
        hash=row.hash,
        source=row.source,
        classes=tuple(row.classes),
        counts=row.counts,
        bytes=row.bytes,
        path=row.path,
        created_at=row.created_at,
    )


def evaluation(row: Row[Any]) -> jobs.Evaluation:
    """Return the evaluation of a row of `evaluations`."""
    return jobs.Evaluation(
        attempt=row.attempt,
        checkpoint_step=row.checkpoint_step,
        checkpoint_sha256=row.checkpoint_sha256,
        loss=row.loss,
        accuracy=row.accuracy,
        images=row.images,
        classes=tuple(row.classes),
        precision=tuple(row.precision),
        recall=tuple(row.recall),
        confusion=tuple(tuple(line) for line in row.confusion),
        seconds=row.seconds,
        created_at=row.created_at,
    )


def worker(row: Row[Any], held: tuple[str, ...]) -> jobs.Worker:
    """Return the worker of a row of `workers`; `held` are the ids of its jobs."""
    return jobs.Worker(
        identity=identity(row),
        state=row.state,
        devices=tuple(row.devices),
        versions=row.versions,
        artifact_root=row.artifact_root,
        started_at=row.started_at,
        beat=row.beat,
        beat_at=row.beat_at,
        jobs=held,
    )


def identity(row: Row[Any]) -> jobs.WorkerIdentity:
    """Return the identity in a row of `workers`."""
    return jobs.WorkerIdentity(**_picked(row, _IDENTITY))


def _picked(row: Row[Any], names: tuple[str, ...]) -> dict[str, Any]:
    values = row._mapping  # noqa: SLF001 - the documented name of a row's mapping
    return {name: values[name] for name in names}


def _spec(stored: dict[str, Any], version: int) -> specs.JobSpec:
    """Return the spec; of one that a newer orch has written, the fields that this one knows."""
    if version <= specs.SPEC_VERSION:
        return specs.JobSpec.model_validate(stored)
    known = {name: value for name, value in stored.items() if name in specs.JobSpec.model_fields}
    return specs.JobSpec.model_construct(**known)
