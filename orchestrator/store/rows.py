"""Rows to domain objects: what leaves the store is frozen and knows nothing of SQL."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

import pydantic
from sqlalchemy import Row

from orchestrator.core import dependencies, history, jobs, limits, provenance, resources, specs

T = TypeVar("T")


def job(row: Row[Any]) -> jobs.Job:
    """Return the job of a row of `jobs`."""
    return jobs.Job(
        user=row.submitted_by,
        tags=tuple(row.tags),
        spec=_spec(row.spec),
        demand=resources.of(row.demand),
        progress=jobs.Progress(**{name: getattr(row, f"progress_{name}") for name in _names(jobs.Progress)}),
        **_picked(row, _names(jobs.Job) - {"user", "tags", "spec", "demand", "progress"}),
    )


def attempt(row: Row[Any]) -> jobs.Attempt:
    """Return the attempt of a row of `attempts`."""
    used = _known(provenance.Environment, row.environment) if row.environment else None
    return _plain(jobs.Attempt, row, environment=used)


def dependency(row: Row[Any]) -> dependencies.Dependency:
    """Return the dependency of a row of `dependencies`."""
    return _plain(dependencies.Dependency, row)


def source(row: Row[Any]) -> provenance.Provenance:
    """Return where the job of a row of `sources` comes from."""
    found = _plain(provenance.Source, row, commit=row.revision)
    return provenance.Provenance(origins=row.origins, source=None if found == provenance.Source() else found)


def event(row: Row[Any]) -> jobs.Event:
    """Return the event of a row of `events`."""
    return _plain(jobs.Event, row)


def epoch_metric(row: Row[Any]) -> jobs.EpochMetric:
    """Return the metric of a row of `epoch_metrics`."""
    return _plain(jobs.EpochMetric, row, usage=_known(jobs.Usage, row.usage) if row.usage else None)


def step_metric(row: Row[Any]) -> jobs.StepMetric:
    """Return the metric of a row of `step_metrics`."""
    return _plain(jobs.StepMetric, row)


def step_span(row: Row[Any]) -> history.StepSpan:
    """Return the steps of an attempt, as counted."""
    return _plain(history.StepSpan, row)


def checkpoint(row: Row[Any]) -> jobs.Checkpoint:
    """Return the checkpoint of a row of `checkpoints`."""
    return _plain(jobs.Checkpoint, row)


def log_chunk(row: Row[Any]) -> jobs.LogChunk:
    """Return the piece of a row of `log_chunks`."""
    return _plain(jobs.LogChunk, row)


def dataset(row: Row[Any]) -> jobs.Dataset:
    """Return the data set of a row of `datasets`."""
    return _plain(jobs.Dataset, row, classes=tuple(row.classes))


def evaluation(row: Row[Any]) -> jobs.Evaluation:
    """Return the evaluation of a row of `evaluations`."""
    return _plain(
        jobs.Evaluation,
        row,
        classes=tuple(row.classes),
        precision=tuple(row.precision),
        recall=tuple(row.recall),
        confusion=tuple(tuple(counts) for counts in row.confusion),
    )


def worker(row: Row[Any], held: tuple[str, ...], now: datetime) -> jobs.Worker:
    """Return the worker of a row of `workers`; `held` are the ids of its jobs, `now` is the shared clock's time."""
    # A beat from the future is none since the clock was set back: who lives has beaten again by now.
    silence = abs((now - row.beat_at).total_seconds())
    return _plain(
        jobs.Worker,
        row,
        identity=identity(row),
        devices=tuple(row.devices),
        limits=limits_of(row),
        slots=_slots(row),
        labels=tuple(row.labels or ()),
        jobs=held,
        silence=silence,
    )


def limits_of(row: Row[Any]) -> limits.Limits:
    """Return what the worker of a row of `workers` keeps to."""
    return _known(limits.Limits, row.limits or {})


def offer(row: Row[Any]) -> resources.Offer:
    """Return what the worker of a row of `workers` has for jobs."""
    return resources.offered(slots=_slots(row), devices=tuple(row.devices), labels=tuple(row.labels or ()))


def _slots(row: Row[Any]) -> tuple[resources.Device, ...]:
    return tuple(_known(resources.Device, slot) for slot in row.slots or ())


def identity(row: Row[Any]) -> jobs.WorkerIdentity:
    """Return the identity in a row of `workers`."""
    return _plain(jobs.WorkerIdentity, row)


def _known(kind: Callable[..., T], stored: Mapping[str, Any]) -> T:
    """Return the object that a column of JSON holds, without what a later orch may have put beside its fields."""
    return kind(**{name: value for name, value in stored.items() if name in _names(kind)})


def _plain(kind: Callable[..., T], row: Row[Any], **changed: Any) -> T:
    """Return the object whose fields are the row's columns of the same names, but for the `changed` ones."""
    return kind(**_picked(row, _names(kind) - changed.keys()), **changed)


@functools.cache
def _names(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))


def _picked(row: Row[Any], names: Iterable[str]) -> dict[str, Any]:
    values = row._mapping  # noqa: SLF001 - the documented name of a row's mapping
    return {name: values[name] for name in names}


def _spec(stored: dict[str, Any]) -> specs.JobSpec:
    """Return the spec; of one that this orch would refuse, the fields it knows: whatever is stored can be looked at."""
    return _parsed(json.dumps(stored))


@functools.lru_cache(maxsize=4096)  # the jobs of a sweep or a person are much alike, and a check takes half a ms
def _parsed(text: str) -> specs.JobSpec:
    stored = json.loads(text)
    try:
        return specs.JobSpec.restored(stored)
    except pydantic.ValidationError:
        known = {name: _tuples(value) for name, value in stored.items() if name in specs.JobSpec.model_fields}
        return specs.JobSpec.model_construct(**known)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
