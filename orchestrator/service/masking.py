"""What may be shown of a job's spec: all of it, but for the password and the keys in the URL of its data."""

from orchestrator import config
from orchestrator.core.specs import JobSpec


def data(text: str) -> str:
    """Return the name of a data set as it may be shown."""
    return config.masked(text) if "://" in text else text


def spec(whole: JobSpec) -> JobSpec:
    """Return the spec as it may be shown."""
    return whole.model_copy(update={"data": data(whole.data)})
