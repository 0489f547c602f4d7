"""Submitting a job: the row is committed first, then the doorbell is rung; a broker that is away costs nothing."""

import getpass
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator import config, errors
from orchestrator.core import weights
from orchestrator.core.dependencies import Dependency
from orchestrator.core.jobs import Job, NewJob
from orchestrator.core.states import After, JobState
from orchestrator.core.telling import Telling, occasions
from orchestrator.service import bell, same
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of a submit."""

    job: Job
    is_new: bool  #: False where the idempotency key was known, or the job has this result already
    ahead: int  #: queued jobs of the same stage that are claimed before it
    needs: tuple[Dependency, ...]  #: what it waits for
    broker: errors.BrokerUnavailable | None  #: why the doorbell was not rung
    same: bool = (
        False  #: whether nothing was queued, since this job has succeeded with the same spec, data and versions
    )


def submit(
    store: Store,
    new: NewJob,
    *,
    ring: bell.Ring,
    require_broker: bool = False,
    reuse: bool = False,
    stored: Callable[[Job], None] = lambda _: None,
) -> Submitted:
    """Store a job and ring for it; with `reuse` return one that has its result already, where there is one.

    An idempotency key asks for a job of its own: then nothing is reused. `stored` hears of the job once it is on disk,
    before anything that may take time.

    Raises:
        BrokerUnavailable: with `require_broker`, after the row was committed; the message names the job.
        InvalidSpec: the weights are those of a job with another network.
        NotFound: there is no such job to take weights from, or it has no checkpoint.
        IdempotencyConflict: the key belongs to a job with another spec.
        DatabaseUnavailable: nothing was stored; or it has been, and the hint names the job.

    """
    new = complete(store, new)
    if reuse and new.idempotency_key is None and (known := same.result(store, new)) is not None:
        return Submitted(job=known, is_new=False, ahead=0, needs=(), broker=None, same=True)
    job, is_new = store.submit(new)
    stored(job)
    broker = ring(job.stage)
    if broker is not None and require_broker:
        raise errors.BrokerUnavailable(
            f"Job {job.id} is stored, but no worker has been told.",
            why=broker.why,
            hint=f"It starts when a worker runs; `orch cancel {job.id}` takes it back.",
        ) from broker
    with naming(job):
        ahead = store.ahead(job.id) if job.state is JobState.QUEUED else 0
        needs = tuple(store.dependencies(job.id)) if new.after else ()
    return Submitted(job=job, is_new=is_new, ahead=ahead, needs=needs, broker=broker)


@contextmanager
def naming(job: Job) -> Iterator[None]:
    """Name a job that is stored where the database goes away behind that: who submits again would have two."""
    try:
        yield
    except errors.DatabaseUnavailable as error:
        error.hint = f"Job {job.id} is stored all the same: `orch status {job.id}` tells how it fares."
        raise


def dependencies(store: Store, wanted: Iterable[str]) -> tuple[Dependency, ...]:
    """Return what a job is to wait for, each written as JOB, JOB:ok or JOB:any.

    Raises:
        NotFound: no job, or (Ambiguous) several.
        UsageError: one of them in two ways, or in one that nobody knows.

    """
    rules: dict[str, After] = {}
    for text in wanted:
        needs, rule = _dependency(store, text)
        if rules.setdefault(needs, rule) is not rule:
            raise errors.UsageError(
                f"Job {needs} cannot be waited for in two ways.",
                why="Either its success is needed, or any end of it is enough.",
                hint=f"--after {needs}, or --after {needs}:{After.ANY}",
            )
    return tuple(Dependency(needs=job_id, rule=rule) for job_id, rule in rules.items())


def _dependency(store: Store, text: str) -> tuple[str, After]:
    """Return the id of the job that is to be waited for, and how."""
    name, colon, rule = text.rpartition(":")
    if colon and rule in {member.value for member in After}:
        return store.find(name).id, After(rule)
    try:
        return store.find(text).id, After.OK  # a name may have a colon of its own
    except errors.NotFound:
        if not colon:
            raise
        needs = store.find(name).id
    raise errors.UsageError(
        f"{rule[:20]!a} is no way to wait for job {needs}.",
        why=f"Known are {' and '.join(After)}: its success, or any end of it.",
        hint=f"--after {needs}, or --after {needs}:{After.ANY}",
    )


def complete(store: Store, new: NewJob) -> NewJob:
    """Return the job with the one whose weights it starts from as its parent, and the step of the best checkpoint."""
    named = weights.job(new.spec.weights)
    if named is None:
        return new
    parent = store.find(named)
    checkpoints = store.checkpoints(parent.id)
    if not checkpoints:
        raise errors.NotFound(
            f"Job {parent.id} has no checkpoint to take weights from.",
            why=f"It is {parent.state}, and the first one is written at the end of an epoch.",
            hint=f"`orch status {parent.id}` says how far it is.",
        )
    if differences := weights.differences(parent.spec.shape, new.spec.shape):
        raise errors.InvalidSpec(
            f"The weights of job {parent.id} do not fit the network.",
            why=f"{'; '.join(differences)}.",
            hint=f"Give it the same network: `orch status {parent.id}` shows its recipe.",
        )
    best = next((checkpoint for checkpoint in checkpoints if checkpoint.best), checkpoints[0])
    spec = new.spec.model_copy(update={"weights": weights.JOB + parent.id})
    return replace(new, spec=spec, parent=parent.id, start_step=best.step)


def telling(settings: config.Settings, targets: Iterable[str] | None, on: Iterable[str] | None) -> Telling | None:
    """Return whom a job tells what; None stands for what the settings say, no target at all for nobody.

    Raises:
        InvalidSpec: a target or an occasion that cannot be.
        InvalidSetting: it is one of the settings'.

    """
    with _blaming("notify_on" if on is None else None):
        wanted = occasions([settings.notify_on] if on is None else on)
    with _blaming("notify" if targets is None else None):
        if targets is None:
            targets = settings.notify.get_secret_value().split() if settings.notify else ()
        named = tuple(filter(None, targets))
        return Telling(targets=named, on=wanted) if named else None


@contextmanager
def _blaming(setting: str | None) -> Iterator[None]:
    """Name the setting that a fault comes from, where it is one: nobody has given its value with the job."""
    try:
        yield
    except errors.InvalidSpec as error:
        if setting is None:
            raise
        why = f"{config.variable(setting)} says so, or a file of settings. {error.why}"
        raise errors.InvalidSetting(error.message, why=why, hint=error.hint or "orch config show --origin") from error


def user(settings: config.Settings) -> str:
    """Return who submits: the setting, else the login name."""
    try:
        return settings.user or getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"
