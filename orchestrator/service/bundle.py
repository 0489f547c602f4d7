"""A job as one file: what is needed to train it again somewhere else, and to compare the results.

Not its pictures: the digest of their content says whether those at hand are the same.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic

from orchestrator import config, errors
from orchestrator.core import history, reproduction, specs, weights
from orchestrator.core.jobs import Checkpoint, Dataset, EpochMetric, Evaluation, Job
from orchestrator.core.provenance import Environment, Source
from orchestrator.core.states import JobState
from orchestrator.service import archive, drafts, query, show, weightfile
from orchestrator.store.base import Store

#: What the archive's comment begins with, and its format.
KIND, FORMAT = "orch bundle", 1

#: How its parts are called: nothing of the name goes further than the ending of a file.
_PART = re.compile(r"(?:start|weights-[a-z-]+)(?:\.[A-Za-z0-9]{1,16})?")

_PIECE = 2**20
_STRICT = pydantic.ConfigDict(frozen=True, extra="forbid", from_attributes=True, ser_json_inf_nan="constants")


class Data(pydantic.BaseModel):
    """What the job was trained on, which is not in the bundle."""

    model_config = _STRICT

    source: str  #: where it came from, secrets masked
    masked: bool  #: whether there was a secret in it, so that nobody can fetch it from `source`
    hash: str  #: of its content
    classes: tuple[str, ...]
    counts: dict[str, int]
    bytes: int


class Epoch(pydantic.BaseModel):
    """An epoch on a split."""

    model_config = _STRICT

    epoch: int
    split: str
    loss: float | None  #: None: it was no number
    accuracy: float
    images: int
    lr: float | None


class Weights(pydantic.BaseModel):
    """The weights of a checkpoint, as `weightfile` writes them."""

    model_config = _STRICT

    roles: tuple[str, ...]  #: best, last
    epoch: int
    step: int
    sha256: str
    part: archive.Part | None  #: None: they are not in the bundle


class Start(pydantic.BaseModel):
    """What the network began with, where the job names weights."""

    model_config = _STRICT

    named: str  #: as the spec has it
    step: int | None  #: of a job's checkpoint
    sha256: str | None  #: of its weights, or of the file; None where that is not here any more
    part: archive.Part | None


class Manifest(archive.Head):
    """What a bundle says of a job."""

    model_config = _STRICT

    made_at: pydantic.AwareDatetime
    job: str
    name: str | None
    spec: dict[str, Any]
    spec_hash: str
    origins: dict[str, str]
    source: Source | None
    environments: tuple[Environment, ...]  #: of each attempt that began to train
    extended: bool  #: whether it got more epochs when it had ended
    data: Data
    epochs: tuple[Epoch, ...]
    evaluation: Evaluation
    weights: tuple[Weights, ...]
    start: Start | None

    @property
    def result(self) -> reproduction.Result:
        """What the training came to."""
        return reproduction.Result(
            weights={role: one.sha256 for one in self.weights for role in one.roles},
            accuracy=self.evaluation.accuracy,
            loss=self.evaluation.loss,
            images=self.evaluation.images,
        )


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A bundle that was written."""

    path: Path
    bytes: int
    manifest: Manifest


def bundle(
    settings: config.Settings,
    store: Store,
    text: str,
    *,
    output: Path | None = None,
    with_weights: bool = False,
    force: bool = False,
) -> Bundled:
    """Write the bundle of a job that has succeeded; `output` is a file, or a folder that is there.

    Raises:
        NotFound: no such job, or its checkpoints are not on this host.
        IllegalMove: it has not succeeded.
        UsageError: the file exists, and not `force`; or it cannot lie there.
        OrchError: a checkpoint is damaged, or the disk does not take it.

    """
    shown = show.show(store, text)
    path = (output or Path()).absolute()
    with drafts.looking():
        if path.is_dir():
            path /= f"{shown.job.id}.zip"
    evaluation, dataset = _result(store, shown.job)
    with archive.writing(path, kind=KIND, force=force) as writer:
        takes = writer if with_weights else None
        manifest = Manifest(
            **_provenance(store, shown),
            data=_data(shown.job, dataset),
            epochs=tuple(map(_epoch, store.epochs(shown.job.id))),
            evaluation=evaluation,
            weights=tuple(_weights(settings, store, shown.job, takes)),
            start=_start(settings, store, shown.job, takes),
        )
        writer.end(manifest)
    return Bundled(path=path, bytes=path.stat().st_size, manifest=manifest)


def _result(store: Store, job: Job) -> tuple[Evaluation, Dataset]:
    """Return what a job came to, and on what; raises IllegalMove where it has not succeeded."""
    evaluation = store.evaluation(job.id)
    dataset = store.dataset(job.data_hash) if job.data_hash else None
    if job.state is not JobState.SUCCEEDED or evaluation is None or dataset is None:
        raise errors.IllegalMove(
            f"Job {job.id} is {job.state}: it has no result that could be compared.",
            hint=f"`orch wait {job.id}`, then say it again.",
        )
    return evaluation, dataset


def _provenance(store: Store, shown: show.Shown) -> dict[str, Any]:
    """Return the fields of a manifest that say which job it is, and where it comes from."""
    job = shown.job
    return {
        "format": FORMAT,
        "orch": metadata.version("orch"),
        "made_at": datetime.now(UTC),
        "job": job.id,
        "name": job.name,
        "spec": job.spec.masked().kept(),
        "spec_hash": job.spec_hash,
        "origins": shown.origins,
        "source": shown.source,
        "environments": tuple(attempt.environment for attempt in shown.trained if attempt.environment),
        "extended": any(event.kind == history.EXTENDED for event in store.events(job.id)),
    }


def _data(job: Job, dataset: Dataset) -> Data:
    source = job.spec.masked().data
    return Data(
        source=source,
        masked=source != job.spec.data,
        hash=dataset.hash,
        classes=dataset.classes,
        counts=dataset.counts,
        bytes=dataset.bytes,
    )


def read(path: Path) -> Manifest:
    """Return what a bundle says, all of it checked; raises NotFound, or OrchError where it is not whole."""
    with archive.Reader(path, KIND) as reader:
        manifest = reader.manifest(Manifest, form=FORMAT)
        every = [*(one.part for one in manifest.weights), manifest.start.part if manifest.start else None]
        parts = [part for part in every if part is not None]
        if strange := [part.name for part in parts if not _PART.fullmatch(part.name)]:
            raise reader.fault(f"{strange[0]!a} is no part of a bundle")
        reader.require_parts(part.name for part in parts)
        for part in parts:
            for _ in reader.pieces(part):
                pass
    return manifest


def spec(manifest: Manifest) -> specs.JobSpec:
    """Return the spec of the job; raises InvalidSpec for one that this orch cannot run."""
    try:
        return specs.JobSpec.restored(manifest.spec)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise errors.InvalidSpec(
            "The spec in the bundle cannot be run.",
            why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}.",
            hint=f"orch {manifest.orch} wrote it.",
        ) from error


def digests(settings: config.Settings, store: Store, job: Job) -> dict[str, str]:
    """Return the sha256 of the job's weights by their roles; raises NotFound where its checkpoints are not here."""
    return {role: one.sha256 for one in _weights(settings, store, job, None) for role in one.roles}


def start_digest(settings: config.Settings, point: Checkpoint) -> str:
    """Return the sha256 of the weights in a checkpoint on this host."""
    return weightfile.digest(query.checkpoint_file(settings, point), sha256=point.sha256)


def _epoch(row: EpochMetric) -> Epoch:
    loss = row.loss if math.isfinite(row.loss) else None
    return Epoch(epoch=row.epoch, split=row.split, loss=loss, accuracy=row.accuracy, images=row.images, lr=row.lr)


def _weights(settings: config.Settings, store: Store, job: Job, writer: archive.Writer | None) -> Iterator[Weights]:
    marked = [point for point in store.checkpoints(job.id) if point.best or point.last]
    for point in marked:
        file = query.checkpoint_file(settings, point)
        if not file.exists():
            raise errors.NotFound(
                f"The checkpoint of job {job.id} is not on this host.",
                why=f"{file} does not exist.",
                hint="Use a host that has its artifact folder, or set ORCH_ARTIFACTS.",
            )
        roles = [name for name in ("best", "last") if getattr(point, name)]
        content = weightfile.pieces(file, sha256=point.sha256)
        part = writer.add(f"weights-{'-'.join(roles)}.safetensors", content, pack=False) if writer else None
        sha256 = part.sha256 if part else _sha256(content)
        yield Weights(roles=tuple(roles), epoch=point.epoch, step=point.step, sha256=sha256, part=part)


def _start(settings: config.Settings, store: Store, job: Job, writer: archive.Writer | None) -> Start | None:
    named = job.spec.weights
    if named is None or named == weights.IMAGENET:
        return None if named is None else Start(named=named, step=None, sha256=None, part=None)
    content, ending = _start_bytes(settings, store, job, named)
    if content is None:
        return Start(named=named, step=job.start_step, sha256=job.spec.weights_sha256, part=None)
    part = writer.add(f"start{ending}", content, pack=False) if writer else None
    return Start(named=named, step=job.start_step, sha256=part.sha256 if part else _sha256(content), part=part)


def _start_bytes(settings: config.Settings, store: Store, job: Job, named: str) -> tuple[Iterator[bytes] | None, str]:
    if weights.is_file(named):
        path = Path(named)
        ending = path.suffix if _PART.fullmatch(f"start{path.suffix}") else ""
        return (_file(path) if path.is_file() else None), ending
    found = (point for point in store.checkpoints(job.parent or "") if point.step == job.start_step)
    point = next(found, None)
    if point is None or not query.checkpoint_file(settings, point).exists():
        return None, ".safetensors"
    return weightfile.pieces(query.checkpoint_file(settings, point), sha256=point.sha256), ".safetensors"


def _file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise errors.OrchError(f"{path} cannot be read.", why=error.strerror) from error


def _sha256(content: Iterator[bytes]) -> str:
    whole = hashlib.sha256()
    for piece in content:
        whole.update(piece)
    return whole.hexdigest()
