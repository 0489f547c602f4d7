"""The files of pre-trained weights on this host: torchvision's, downloaded into the cache, and those that jobs name.

weights/<sha256>.pth   a file of torchvision's, whole; beside it a download under way, as for data sets
"""

import hashlib
from pathlib import Path

import filelock

from orchestrator import config, errors, failpoints
from orchestrator.core import specs, states
from orchestrator.core import weights as named
from worker.data import download, once, sources
from worker.refusals import refused

#: Below the data cache.
FOLDER = "weights"


def key(spec: specs.JobSpec) -> str | None:
    """Return what the names of the files of a download begin with; None where the job needs none of torchvision's."""
    name = named.imagenet_file(spec.shape) if spec.weights == named.IMAGENET else None
    return name and Path(name).stem


def ensure(spec: specs.JobSpec, *, settings: config.Settings, report: once.Report) -> Path | None:
    """Return the file of the weights that the job starts from; None where it starts from none, or from a job's.

    Raises:
        StageFailed: bad_input, unreachable, disk_full or timeout.

    """
    if spec.weights == named.IMAGENET:
        return _of_imagenet(spec, settings, report)
    if spec.weights is None or not named.is_file(spec.weights):
        return None
    source = sources.Source(kind="path", location=spec.weights, label=spec.weights)
    sources.check_allowed(source, settings)
    if not source.path.is_file():
        raise refused(
            f"{spec.weights} is no file.",
            hint="Give the path of a .safetensors file, or of a state_dict that torch.save has written.",
        )
    return source.path


def _of_imagenet(spec: specs.JobSpec, settings: config.Settings, report: once.Report) -> Path:
    name = named.imagenet_file(spec.shape)
    if name is None:  # refused at submit
        raise errors.StageFailed("There are no such weights.", reason=states.Reason.USER_ERROR)
    folder, locks, digest = settings.data_dir / FOLDER, settings.data_dir / "locks", named.digest(name)
    failpoints.reach("weights.mkdir")
    folder.mkdir(parents=True, exist_ok=True)
    locks.mkdir(exist_ok=True)
    path = folder / name
    progress = locks / f"{path.stem}.progress"
    failpoints.reach("weights.lock")
    with once.held(filelock.FileLock(locks / f"{path.stem}.lock"), progress, report):
        if _is_whole(path, digest):
            return path
        reporter = once.Reporter(report, progress)
        try:
            return download.fetch(
                f"{settings.weights_url.rstrip('/')}/{name}",
                folder=folder,
                name=path.stem,
                suffix=path.suffix,
                sha256=digest,
                policy=download.Policy.of(settings),
                report=lambda done, total: reporter(done, total, "bytes"),
            ).path
        finally:
            failpoints.reach("weights.done")
            progress.unlink(missing_ok=True)


def _is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there and its sha256 begins so."""
    if not path.exists():
        return False
    failpoints.reach("weights.look")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digest)
