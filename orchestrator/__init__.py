"""What to run, where it stands, who may change it. No torch in here.

    from orchestrator import Client, JobSpec

Names are imported when they are first used: `import orchestrator` alone loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.client import Client, Metrics
    from orchestrator.core.jobs import EpochMetric, Evaluation, Job
    from orchestrator.core.specs import JobSpec
    from orchestrator.core.states import JobState, Reason
    from orchestrator.service.predict import Prediction

__all__ = ["Client", "EpochMetric", "Evaluation", "Job", "JobSpec", "JobState", "Metrics", "Prediction", "Reason"]

_HOMES = {
    "Client": "orchestrator.client",
    "EpochMetric": "orchestrator.core.jobs",
    "Evaluation": "orchestrator.core.jobs",
    "Job": "orchestrator.core.jobs",
    "JobSpec": "orchestrator.core.specs",
    "JobState": "orchestrator.core.states",
    "Metrics": "orchestrator.client",
    "Prediction": "orchestrator.service.predict",
    "Reason": "orchestrator.core.states",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
