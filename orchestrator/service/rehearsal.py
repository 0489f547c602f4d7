"""What would become of a job that was submitted now: its time, its place, when it begins and ends. Nothing stays."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator import config, errors
from orchestrator.core.jobs import Job, NewJob
from orchestrator.service import context, query, same, speeds, submit
from orchestrator.service import why as asking
from orchestrator.service.experience import Experience


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a submit would come to; of a database that is not there, only how long such a training takes."""

    foreseen: speeds.Foreseen | None  #: None where nothing was measured on such a device
    same: Job | None = None  #: the job that has its result already
    answer: asking.Why | None = None  #: how it would stand in the queue


def rehearse(settings: config.Settings, new: NewJob, *, after: Iterable[str], reuse: bool) -> Rehearsal:
    """Return what a submit of `new` behind the jobs `after` would come to.

    Raises:
        InvalidSpec: the weights are those of a job with another network.
        NotFound: there is no such job to wait for or to take weights from, or it has no checkpoint.

    """
    try:
        with context.opened(settings, create=False) as opened:
            store = opened.store
            new = submit.complete(store, replace(new, after=submit.dependencies(store, after)))
            workers = query.living(store)
            foreseen = speeds.foresee(new.spec, Experience(store), speeds.place(workers))
            known = same.result(store, new) if reuse and new.idempotency_key is None else None
            job, needs, standing = store.rehearse(new)
            answer = asking.answer(settings, store, job, tuple(needs), standing)
            return Rehearsal(foreseen=foreseen, same=known, answer=answer)
    except (errors.DatabaseUnavailable, errors.SchemaMismatch):
        return Rehearsal(foreseen=speeds.foresee(new.spec, None, speeds.place(())))
