"""What a job is: its spec, where each value of it comes from, and what its result stands on."""

from dataclasses import dataclass

from orchestrator.core import history
from orchestrator.core.jobs import Attempt, Job
from orchestrator.core.provenance import Source
from orchestrator.core.specs import JobSpec
from orchestrator.service import jobfile
from orchestrator.store.base import Store

#: Where a value comes from of which nobody has said it: a program gave a whole spec, or an earlier orch stored the job.
GIVEN = "given"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A job and where it comes from."""

    job: Job
    origins: dict[str, str]  #: of each field of its spec
    source: Source | None  #: None where it was submitted in no repository
    trained: tuple[Attempt, ...]  #: attempts of which it is known what they trained with


def show(store: Store, text: str) -> Shown:
    """Return what the job is that `text` means; raises NotFound, or Ambiguous with the candidates."""
    job = store.find(text)
    known = store.provenance(job.id)
    origins = {name: known.origins.get(name) or _unsaid(job.spec, name) for name in JobSpec.model_fields}
    if any(event.kind == history.EXTENDED for event in store.events(job.id)):
        origins["epochs"] = "extend"
    return Shown(
        job=job,
        origins=origins,
        source=known.source,
        trained=tuple(attempt for attempt in store.attempts(job.id) if attempt.environment is not None),
    )


def _unsaid(spec: JobSpec, name: str) -> str:
    info = JobSpec.model_fields[name]
    return jobfile.DEFAULT if getattr(spec, name) == info.default else GIVEN
