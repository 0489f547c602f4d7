"""A bundle trained again: what differs here is said before it begins, and what it came to is judged behind its end."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import config, errors
from orchestrator.core import provenance, reproduction, specs, weights
from orchestrator.core.jobs import Job, NewJob, Worker
from orchestrator.core.provenance import Environment, Provenance
from orchestrator.core.reproduction import Outcome
from orchestrator.core.states import JobState
from orchestrator.service import archive, bell, bundle, control, drafts, follow, jobfile, query, submit
from orchestrator.store.base import Store

#: What a reproduction may have otherwise than the job: where it trains, and how it is treated in the queue.
_FREE = frozenset({"data", "data_sha256", "weights", "weights_sha256", "layout", "precision", "notify"})

#: Fields that `auto` leaves to the host: the bundle says what was chosen.
_CHOSEN = ("layout", "precision")

_CPUS = Path("/proc/cpuinfo")

#: What decides the bits of a training, of what it ran on, beside the versions.
_DECISIVE = (
    *("device", "cpu", "instructions", "threads", "layout", "precision"),
    *("compiled", "code", "tf32", "cudnn_benchmark"),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained again here."""

    manifest: bundle.Manifest
    spec: specs.JobSpec
    differences: tuple[str, ...]  #: what differs here, each as `name: there, here`
    remarks: tuple[str, ...]  #: why it may not come to the same


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a job came to, next to the one in a bundle."""

    bundle: str  #: id of the job in it
    job: str
    outcome: Outcome
    why: str | None  #: of one that was not run
    other_data: bool = False  #: it was not run on the same data
    first: reproduction.Result
    again: reproduction.Result | None
    tolerance: float | None  #: largest difference of accuracies that counts as noise
    epoch: int | None  #: the first epoch whose training loss differs; None: all are equal
    differences: tuple[str, ...]  #: what it trained with otherwise, each as `name: there, here`


def plan(settings: config.Settings, store: Store, path: Path, *, data: str | None = None) -> Plan:
    """Return what the bundle at `path` means here; `data` names the same data at another place.

    Raises:
        NotFound: there is no such file, or what the job began with is not here.
        UsageError: its data came from a URL with a secret, and `data` is None.
        InvalidSpec: this orch cannot run it.
        OrchError: the file is not whole.

    """
    manifest = bundle.read(path)
    if manifest.data.masked and data is None:
        raise errors.UsageError(
            f"The data of job {manifest.job} came from a URL with a secret, which is not in the bundle.",
            why=f"{manifest.data.source} is all that the bundle has of it.",
            hint="--data SOURCE gives the whole URL, or names where the same data is here.",
        )
    there = bundle.spec(manifest)
    used = manifest.environments[-1] if manifest.environments else None
    changed: dict[str, Any] = {} if data is None else {"data": data}
    if used is not None:
        changed |= {name: getattr(used, name) for name in _CHOSEN if getattr(there, name) == "auto"}
    changed |= _start(settings, store, path, manifest)
    spec = jobfile.placed(specs.parse(there.model_dump() | changed))
    workers = query.living(store)
    return Plan(
        manifest=manifest,
        spec=spec,
        differences=tuple(_differences(settings, used, workers)) if used else (),
        remarks=tuple(_remarks(manifest, used)),
    )


def begin(
    settings: config.Settings, store: Store, wanted: Plan, *, stored: Callable[[Job], None] = lambda _: None
) -> Job:
    """Queue the job of a plan, and tell `stored` so; one that is alike is not taken for it."""
    manifest = wanted.manifest
    new = NewJob(
        spec=wanted.spec,
        user=submit.user(settings),
        name=manifest.name,
        tags=("reproduction", f"of-{manifest.job}"),
        provenance=Provenance(origins=dict.fromkeys(specs.JobSpec.model_fields, f"bundle of {manifest.job}")),
    )
    return submit.submit(store, new, ring=functools.partial(bell.ring, settings), stored=stored).job


def until_ended(
    settings: config.Settings,
    store: Store,
    wanted: Plan,
    job_id: str,
    *,
    timeout: float | None = None,
    away: follow.Away = follow.unheard,
) -> Iterator[Job]:
    """Yield the job at each change until it has ended; it is cancelled where its data is not that of the bundle.

    Raises:
        TimedOut: it has not ended in time; it goes on.

    """
    for job in follow.changes(store, job_id, timeout=timeout, away=away):
        if job.data_hash not in {None, wanted.manifest.data.hash} and not job.final:
            with contextlib.suppress(errors.IllegalMove):  # it has just ended
                control.cancel(settings, store, job_id)
        yield job


def verdict(
    settings: config.Settings, store: Store, manifest: bundle.Manifest, text: str, *, tolerance: float | None = None
) -> Verdict:
    """Return what a job that has ended came to; `tolerance` stands in for that which the pictures' number gives.

    Raises:
        NotFound: no such job, or its checkpoints are not on this host.
        IllegalMove: it has not ended.
        UsageError: it is another training than the one in the bundle.

    """
    job = store.find(text)
    _require_alike(manifest, job)
    if not job.final:
        raise errors.IllegalMove(f"Job {job.id} has not ended.", hint=f"`orch wait {job.id}`, then say it again.")
    evaluation = store.evaluation(job.id)
    first = manifest.result
    known: dict[str, Any] = {"bundle": manifest.job, "job": job.id, "first": first}
    known |= {"differences": tuple(_ran_otherwise(store, manifest, job))}
    if (why := _not_run(manifest, job)) is not None or evaluation is None:
        nothing: dict[str, Any] = {"again": None, "tolerance": None, "epoch": None}
        other = _has_other_data(manifest, job)
        return Verdict(
            outcome=Outcome.NOT_RUN, why=why or "It was not evaluated.", other_data=other, **known, **nothing
        )
    again = reproduction.Result(
        weights=bundle.digests(settings, store, job),
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        images=evaluation.images,
    )
    within = reproduction.tolerance(first, again) if tolerance is None else tolerance
    outcome = reproduction.judge(first, again, within=within)
    epoch = _other_epoch(store, manifest, job)
    return Verdict(outcome=outcome, why=None, again=again, tolerance=within, epoch=epoch, **known)


def _not_run(manifest: bundle.Manifest, job: Job) -> str | None:
    if _has_other_data(manifest, job):
        return f"Its data is another: {manifest.data.hash} there, {job.data_hash} here."
    return None if job.state is JobState.SUCCEEDED else f"It is {job.state}: {job.error or 'nobody says why'}"


def _has_other_data(manifest: bundle.Manifest, job: Job) -> bool:
    return job.data_hash not in {None, manifest.data.hash}


def _require_alike(manifest: bundle.Manifest, job: Job) -> None:
    there, here = bundle.spec(manifest).kept(), job.spec.kept()
    names = sorted(name for name in (there.keys() | here.keys()) - _FREE if there.get(name) != here.get(name))
    if names:
        raise errors.UsageError(
            f"Job {job.id} is another training than job {manifest.job} in the bundle.",
            why="; ".join(f"{name}: {there.get(name)}, {here.get(name)} here" for name in names),
            hint="`orch reproduce BUNDLE` queues the job that is to be judged.",
        )


def _other_epoch(store: Store, manifest: bundle.Manifest, job: Job) -> int | None:
    """Return the first epoch whose training loss differs, None where all are equal to the last bit."""
    there = {row.epoch: row.loss for row in manifest.epochs if row.split == "train"}
    here = {row.epoch: row.loss for row in store.epochs(job.id) if row.split == "train"}
    return next((epoch for epoch in sorted(there) if here.get(epoch) != there[epoch]), None)


def _ran_otherwise(store: Store, manifest: bundle.Manifest, job: Job) -> Iterator[str]:
    here = [attempt.environment for attempt in store.attempts(job.id) if attempt.environment is not None]
    if not here or not manifest.environments:
        return
    before, now = manifest.environments[-1], here[-1]
    yield from provenance.differences(before.versions, now.versions)
    for name in _DECISIVE:
        first, again = getattr(before, name), getattr(now, name)
        if first != again:
            yield f"{name}: {str(first) or 'none'}, {str(again) or 'none'}"


def _differences(settings: config.Settings, used: Environment, workers: tuple[Worker, ...]) -> Iterator[str]:
    """Yield what the workers, and this host where one of them may be, have otherwise than the job had."""
    for worker in workers:
        for one in provenance.differences(used.versions, worker.versions):
            yield f"{one} ({worker.id})"
    devices = {device for worker in workers for device in worker.devices}
    if devices and used.device not in {"cpu" if device == "CPU" else device for device in devices}:
        yield f"device: {used.device}, {', '.join(sorted(devices))}"
    processor = _processor()
    if processor is not None and processor != used.cpu:
        yield f"processor: {used.cpu}, {processor}"
    threads = settings.threads or len(os.sched_getaffinity(0))
    if used.device == "cpu" and threads != used.threads:
        yield f"threads: {used.threads}, {threads}"


def _remarks(manifest: bundle.Manifest, used: Environment | None) -> Iterator[str]:
    if used is None:
        yield "Nobody knows what it trained with."
    elif used.device != "cpu":
        yield f"It trained on {used.device}: equal bits are promised for the CPU alone."
    if manifest.extended and bundle.spec(manifest).courses:
        yield "It was given more epochs on its way: what depends on their number takes another course from the start."


def _processor() -> str | None:
    with contextlib.suppress(OSError):
        for line in _CPUS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() == "model name":
                return value.strip()
    return None


def _start(settings: config.Settings, store: Store, path: Path, manifest: bundle.Manifest) -> Mapping[str, Any]:
    """Return the fields of the spec that name what the network begins with, where it is not at the same place here.

    Raises:
        NotFound: it is not here.

    """
    start = manifest.start
    if start is None or start.named == weights.IMAGENET:
        return {}
    if (parent := weights.job(start.named)) is not None:
        _require_parent(settings, store, parent, start)
        return {}
    there = Path(start.named)
    if start.sha256 is not None and there.is_file() and _sha256(there) == start.sha256:
        return {}
    if start.part is None:
        raise errors.NotFound(
            f"The weights that job {manifest.job} began with are not here.",
            why=f"{start.named} is not the file with the sha256 {start.sha256}.",
            hint="Put it there; or let `orch bundle --with-weights` take it along.",
        )
    own = _own_start(settings, path, start)
    return {"weights": str(own), "weights_sha256": start.part.sha256}


def _require_parent(settings: config.Settings, store: Store, parent: str, start: bundle.Start) -> None:
    with contextlib.suppress(errors.NotFound):
        points = store.checkpoints(store.find(parent).id)
        best = next((point for point in points if point.best), points[0] if points else None)
        if best is not None and bundle.start_digest(settings, best) == start.sha256:
            return
    raise errors.NotFound(
        f"The job began with the weights of job {parent}, step {start.step}, which are not here.",
        why="Its best checkpoint is another one, or it is of another installation.",
        hint="`orch backup` and `orch restore` bring a whole installation along.",
    )


def _sha256(path: Path) -> str | None:
    """Return the digest of a file; None where it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def _own_start(settings: config.Settings, path: Path, start: bundle.Start) -> Path:
    """Write the weights out of the bundle into this home, by their digest, and return the file.

    It is written anew where it is there: `worker.garbage` leaves new ones alone, for the job is not queued yet.
    """
    if start.part is None:
        raise errors.OrchError(f"{path} holds no weights to begin with.")
    folder = settings.bundle_dir
    file = folder / f"{start.part.sha256}{Path(start.part.name).suffix}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise errors.OrchError(f"{folder} cannot be made.", why=error.strerror) from error
    with archive.Reader(path, bundle.KIND) as reader, drafts.drafts(file) as (draft,), draft.open("wb") as out:
        for piece in reader.pieces(start.part):
            out.write(piece)
    return file.absolute()
