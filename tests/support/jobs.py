"""Fixed domain objects, for what is a pure matter of how they are shown."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.core import jobs, specs, states

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def job(**fields: Any) -> jobs.Job:
    """Return a job that has succeeded, with `fields` in the place of its own; `spec` may be a dictionary."""
    given = fields.pop("spec", {})
    spec = given if isinstance(given, specs.JobSpec) else specs.parse({"data": "digits", **given})
    plain: dict[str, Any] = {
        "id": "k3f9m2qa",
        "seq": 1,
        "name": None,
        "user": "ada",
        "tags": (),
        "priority": 0,
        "spec": spec,
        "spec_hash": spec.digest(),
        "spec_version": specs.SPEC_VERSION,
        "idempotency_key": None,
        "state": states.JobState.SUCCEEDED,
        "stage": states.Stage.EVALUATE,
        "wish": states.Wish.RUN,
        "run": 1,
        "attempt": 3,
        "retries": 0,
        "total_retries": 0,
        "reason": None,
        "error": None,
        "hint": None,
        "progress": jobs.Progress(),
        "worker": None,
        "data_hash": "d" * 64,
        "artifact_root": "root-a",
        "best_accuracy": None,
        "submitted_at": NOON,
        "not_before": None,
        "started_at": NOON,
        "finished_at": NOON,
    }
    kinds = {"state": states.JobState, "stage": states.Stage}
    return jobs.Job(**{**plain, **{name: kinds.get(name, lambda same: same)(value) for name, value in fields.items()}})


def epoch(number: int, split: jobs.Split, **fields: Any) -> jobs.EpochMetric:
    """Return an epoch on a split."""
    plain = {"loss": 1.0, "accuracy": 0.5, "images": 10, "seconds": 1.0}
    return jobs.EpochMetric(**{"epoch": number, "split": split, **plain, **fields})
