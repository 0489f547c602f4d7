"""What a network is before its first step: weights from elsewhere, where the job names some."""

from pathlib import Path

from orchestrator import config, errors
from orchestrator.core import states
from orchestrator.core import weights as named
from worker import protocol
from worker.data import once
from worker.data import weights as files
from worker.models import densenet, weights
from worker.training import checkpoint


def load(
    network: densenet.DenseNet,
    assignment: protocol.Assignment,
    *,
    classes: tuple[str, ...],
    settings: config.Settings,
    report: once.Report,
) -> str | None:
    """Put the weights that the job names into its network; return whose they are, None where it names none.

    The classifier comes along from a job that was about the very same classes; else it stays as it was drawn.

    Raises:
        StageFailed: bad_input, when they do not fit; no_valid_checkpoint, when a job's are gone; or the download's.

    """
    spec = assignment.spec
    if (job := named.job(spec.weights)) is not None:
        return _from_job(network, assignment, job, classes)
    path = files.ensure(spec, settings=settings, report=report)
    if path is None:
        return None
    of_imagenet = named.imagenet_file(spec.shape) if spec.weights == named.IMAGENET else None
    digest = named.digest(of_imagenet) if of_imagenet else spec.weights_sha256
    source = of_imagenet or str(path)
    weights.start(network, weights.read(path, sha256=digest), head=False, source=source)
    return f"{source}, all but the classifier"


def _from_job(network: densenet.DenseNet, assignment: protocol.Assignment, job: str, classes: tuple[str, ...]) -> str:
    info = assignment.start
    if info is None:
        raise _gone(job, why="The job was deleted, or no database knows of it here.")
    root = Path(assignment.artifact_root)
    try:
        found = checkpoint.read(checkpoint.below(root, info.path), size=info.bytes, sha256=info.sha256)
    except checkpoint.Damaged as error:
        raise _gone(job, why=f"{info.path}: {error}.") from error
    same = found.state.classes == classes
    weights.start(network, found.weights(), head=same, source=f"job {job}")
    return f"job {job}, step {info.step}, {'classifier and all' if same else 'all but the classifier'}"


def _gone(job: str, *, why: str) -> errors.StageFailed:
    return errors.StageFailed(
        f"The checkpoint of job {job} cannot be used.",
        reason=states.Reason.NO_VALID_CHECKPOINT,
        why=why,
        hint="Restore it from a backup, or start from other weights.",
    )
