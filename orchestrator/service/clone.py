"""A job like another one."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator import config
from orchestrator.core import resources, specs
from orchestrator.core.jobs import Job, NewJob, is_tag
from orchestrator.service import bell, jobfile, provenance, submit
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A job like another one, before it is submitted."""

    new: NewJob
    resolved: jobfile.Resolved


def like(
    settings: config.Settings,
    store: Store,
    text: str,
    *,
    flags: Mapping[str, Any],
    name: str | None = None,
    tags: tuple[str, ...] = (),
    priority: int | None = None,
    device: str | None = None,
    gpu_memory: str | None = None,
    labels: Iterable[str] | None = None,
    not_before: datetime | None = None,
) -> Likeness:
    """Return a job with the spec of the one that `text` means, but for `flags`, and its demands but for those given.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        InvalidSpec: the spec with the flags cannot be run, or nothing can be as it demands.

    """
    parent = store.find(text)
    likeness = jobfile.JobFile(origin=f"job {parent.id}", fields=chosen(parent.spec))
    resolved = jobfile.resolve(flags=flags, file=likeness, settings=settings)
    new = NewJob(
        spec=resolved.spec,
        user=submit.user(settings),
        name=name,
        tags=tuple(dict.fromkeys([*filter(is_tag, parent.tags), *tags])),
        priority=parent.priority if priority is None else priority,
        demand=resources.changed(parent.demand, device=device, gpu_memory=gpu_memory, labels=labels),
        parent=parent.id,
        notify=submit.telling(settings, None, None),
        not_before=not_before,
    )
    return Likeness(new=new, resolved=resolved)


def clone(
    settings: config.Settings,
    store: Store,
    likeness: Likeness,
    *,
    after: Iterable[str] = (),
    stored: Callable[[Job], None] = lambda _: None,
) -> submit.Submitted:
    """Submit it, behind the jobs `after`, and tell `stored` so; raises NotFound where one of these is not there."""
    new = replace(
        likeness.new,
        after=submit.dependencies(store, after),
        provenance=provenance.here(settings, likeness.resolved.origins),
    )
    return submit.submit(store, new, ring=functools.partial(bell.ring, settings), stored=stored)


def chosen(spec: specs.JobSpec) -> dict[str, Any]:
    """Return the fields of a spec that neither defaults nor its data's and its network's names stand for.

    With another network or data set in their place, the others still mean what they meant.
    """
    names = {"data": spec.data, "network": spec.network}
    usual = specs.JobSpec.model_validate(names)
    return names | {name: value for name, value in spec if value != getattr(usual, name)}
