"""Why a job waits: its place, what it waits for, why each worker does not take it, and when it begins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator import config
from orchestrator.core import dependencies, forecast, gangs
from orchestrator.core.jobs import Job, Worker
from orchestrator.core.limits import Limits
from orchestrator.core.ordering import Standing
from orchestrator.core.states import Ended, JobState, Stage, WorkerState, WorkerWish
from orchestrator.service import forecasts, query, takers
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A worker, and why it does not take the job."""

    worker: Worker
    takes: bool  #: whether it will, as soon as it is its turn and a device is free
    why: str


@dataclass(frozen=True, kw_only=True)
class _Devices:
    """A worker's devices."""

    host: gangs.Host | None  #: None where it begins no training
    kept_for: Job | None  #: that it holds free ones back for


@dataclass(frozen=True, kw_only=True)
class Why:
    """What stands between a job and its end."""

    job: Job
    sentence: str  #: the one answer
    before: dict[str, int]  #: how many jobs of each user are claimed first
    needs: tuple[dependencies.Dependency, ...]
    verdicts: tuple[Verdict, ...]
    silent: Worker | None  #: that holds it, and is not heard of
    begins: forecast.Interval | None  #: its stage, in seconds from now, where that can be said
    ends: forecast.Interval | None  #: all its stages


def why(settings: config.Settings, store: Store, text: str) -> Why:
    """Return why the job that `text` means stands where it does; raises NotFound, or Ambiguous with the candidates."""
    job = store.find(text)
    return answer(settings, store, job, tuple(store.dependencies(job.id)), store.standing(job.id))


def answer(
    settings: config.Settings, store: Store, job: Job, needs: tuple[dependencies.Dependency, ...], standing: Standing
) -> Why:
    """Return why a job stands where it does, which need not be stored."""
    waits = job.state is JobState.QUEUED
    training = store.running(Stage.TRAIN)
    held = store.held_back() if waits and job.stage is Stage.TRAIN else {}
    workers, hosts = query.living(store), {host.worker: host for host in store.hosts()} if waits else {}
    verdicts = tuple(
        _verdict(settings, worker, job, training, _Devices(host=hosts.get(worker.id), kept_for=held.get(worker.id)))
        for worker in (workers if waits else ())
    )
    if waits and job.stage is not Stage.EVALUATE:
        verdicts = _with_data(verdicts, store.copies(job))
    taking = (
        [one.worker for one in verdicts if one.takes]
        if waits
        else [w for w in workers if not query.silent(w, settings)]
    )
    heard_of = [worker for worker in workers if not query.silent(worker, settings) and worker.id in hosts]
    silent = next((one for one in workers if one.id == job.worker and query.silent(one, settings)), None)
    foreseen, slots = forecasts.Forecast(store), takers.slots(taking, heard_of, downloads=settings.download_slots)
    begins = foreseen.begins(job, standing, slots)
    return Why(
        job=job,
        sentence=_silence(silent) if silent else _sentence(job, standing.ahead, needs, verdicts) + _room(job, training),
        before=standing.before,
        needs=needs,
        verdicts=verdicts,
        silent=silent,
        begins=begins,
        ends=None if silent else foreseen.ends(job, begins, slots),
    )


def _sentence(job: Job, ahead: int, needs: tuple[dependencies.Dependency, ...], verdicts: tuple[Verdict, ...]) -> str:
    if job.state is not JobState.QUEUED:
        return _not_waiting(job)
    stands_before = query.blocked(job, needs, now=datetime.now(UTC))
    if stands_before:
        return f"It is queued for {job.stage}, and {stands_before}."
    if not verdicts:
        return f"It is queued for {job.stage}: no worker is running."
    if not any(verdict.takes for verdict in verdicts):
        return f"It is queued for {job.stage}: no worker takes it as things stand."
    place = "it is next in line" if not ahead else f"{ahead} {'job is' if ahead == 1 else 'jobs are'} ahead of it"
    return f"It is queued for {job.stage}: {place}."


def _room(job: Job, training: list[Job]) -> str:
    """Return who makes room for a job, as a sentence behind the first."""
    making = [one.id for one in training if one.yields_to == job.id]
    if not making:
        return ""
    makes = "makes room for it," if len(making) == 1 else "make room for it, each"
    return f" {', '.join(making)} {makes} after a checkpoint at its next step."


def _not_waiting(job: Job) -> str:
    if job.yields_to is not None:
        return f"It does not wait: it makes room for {job.yields_to} on {job.worker}, and goes on later."
    if job.state is JobState.RUNNING:
        return f"It does not wait: it is {query.doing(job)} on {job.worker}."
    if job.state is JobState.PAUSED:
        return "It is paused: it waits for `orch resume`."
    said = f": {job.reason}" if job.reason else ""
    return f"It does not wait: it has {'been ' if job.state is JobState.CANCELLED else ''}{job.state}{said}."


def _silence(worker: Worker) -> str:
    held = f"It does not wait: {worker.id} holds it, which has been silent for {worker.silence:.0f} s"
    return f"{held}. Any worker that runs takes it back."


def _verdict(settings: config.Settings, worker: Worker, job: Job, training: list[Job], devices: _Devices) -> Verdict:
    hindrance = next(_hindrances(settings, worker, job, training), None)
    if hindrance is not None:
        return Verdict(worker=worker, takes=False, why=hindrance)
    if job.stage is Stage.DOWNLOAD or devices.host is None:
        return Verdict(worker=worker, takes=True, why="takes it when it is its turn")
    return Verdict(worker=worker, takes=True, why=_when(devices.host, job, training, devices.kept_for))


def _with_data(verdicts: tuple[Verdict, ...], having: frozenset[str]) -> tuple[Verdict, ...]:
    """Say of the workers that take a job which have its data, where some do and others do not."""
    takers = [one for one in verdicts if one.takes]
    has = {one.worker.id: one.worker.identity.host in having for one in takers}
    if len(set(has.values())) < 2:  # noqa: PLR2004 - all are alike
        return verdicts
    said = {True: "its host has the data", False: "its host fetches the data first"}
    return tuple(replace(one, why=f"{one.why}; {said[has[one.worker.id]]}") if one.takes else one for one in verdicts)


def _when(host: gangs.Host, job: Job, training: list[Job], kept_for: Job | None) -> str:
    """Return when a worker takes the job."""
    demand = job.demand.at(job.stage)
    free = gangs.different(demand, host.free)
    kept = kept_for.demand if kept_for is not None and kept_for.id != job.id else None
    if kept_for is not None and kept is not None and gangs.chosen(demand, free):
        free = tuple(device for device in free if not kept.fits(device))
        if not gangs.chosen(demand, free):
            return f"holds its free devices back for {kept_for.id}, which trains on {kept.gpus} together"
    if len(free) >= demand.gpus:
        found = "a free device" if demand.gpus == 1 else f"{len(free)} free devices"
        return f"has {found} and takes it when it is its turn"
    needed = "a device is free"
    if demand.gpus > 1:
        are = "is" if len(free) == 1 else "are"
        needed = f"{demand.gpus} devices are free at once, of which {len(free)} {are}"
    held = ", and holds those back from later jobs" if kept_for is not None and kept is None and free else ""
    return f"takes it when {needed}{held}: {_busy(host.holding(demand), training)}"


def _busy(with_a_device: Iterable[str], training: list[Job]) -> str:
    """Return what a worker is at that has no device free."""
    trains = {job.id for job in training}
    doing: dict[str, list[str]] = {"trains": [], "evaluates": []}
    for job_id in with_a_device:
        doing["trains" if job_id in trains else "evaluates"].append(job_id)
    said = [f"{verb} {', '.join(ids)}" for verb, ids in doing.items() if ids]
    return f"it {' and '.join(said)}"


def _hindrances(settings: config.Settings, worker: Worker, job: Job, training: list[Job]) -> Iterator[str]:
    """Yield why a worker cannot take a job, the strongest reason first."""
    if query.silent(worker, settings):
        yield f"has been silent for {worker.silence:.0f} s"
    if worker.state is WorkerState.UNHEALTHY:
        yield "is unhealthy and takes no jobs: `orch doctor` says why"
    if worker.wish is WorkerWish.DRAIN or worker.state is WorkerState.DRAINING:
        yield "is draining and takes no jobs"
    if job.artifact_root is not None and worker.artifact_root != job.artifact_root:
        yield f"has another artifact folder: the job's checkpoints lie in {job.artifact_root}"
    known = worker.versions.get("spec")
    if known is not None and int(known) < job.spec_version:
        yield f"is older: it knows jobs up to version {known}, this is one of version {job.spec_version}"
    if worker.state is WorkerState.SPENT and job.stage is Stage.TRAIN:
        yield f"{query.SPENT} and begins no other"
    if lacks := job.demand.unmet(job.stage, worker.offer):
        yield "; ".join(lacks)
    if job.stage is Stage.TRAIN:
        yield from _limited(worker.limits, job, training)


def _limited(limits: Limits, job: Job, training: list[Job]) -> Iterator[str]:
    own = sum(one.user == job.user for one in training)
    if limits.user_is_full(job.user, own):
        yield f"keeps to a limit of {limits.of_user(job.user)} at once for {job.user}, who trains {own}"
    for tag in sorted(limits.full_tags(one.tags for one in training) & set(job.tags)):
        yield f"keeps to a limit of {limits.of_tag(tag)} at once for the tag {tag}"


def ended(one: dependencies.Dependency) -> str:
    """Return how a job that is waited for stands, in words."""
    if one.ended is None:
        return "has not ended"
    return {Ended.SUCCEEDED: "has succeeded", Ended.FAILED: "has failed", Ended.CANCELLED: "was cancelled"}.get(
        one.ended, "was deleted"
    )
