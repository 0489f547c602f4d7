"""What a network is before its first step: weights from elsewhere, where the job names some."""

from orchestrator import config
from orchestrator.core import specs
from orchestrator.core import weights as named
from worker.data import once
from worker.data import weights as files
from worker.models import densenet, weights


def load(
    network: densenet.DenseNet, spec: specs.JobSpec, *, settings: config.Settings, report: once.Report
) -> str | None:
    """Put the weights that the job names into its network, all but the classifier; return whose they are, or None.

    Raises:
        StageFailed: bad_input, when they do not fit; or what the download raises.

    """
    path = files.ensure(spec, settings=settings, report=report)
    if path is None:
        return None
    of_imagenet = named.imagenet_file(spec.shape) if spec.weights == named.IMAGENET else None
    digest = named.digest(of_imagenet) if of_imagenet else spec.weights_sha256
    source = of_imagenet or str(path)
    weights.start(network, weights.read(path, sha256=digest), head=False, source=source)
    return source
