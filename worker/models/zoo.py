"""From a job spec to its network. The numbers behind each name are in `orchestrator.core.networks`."""

import dataclasses

from orchestrator import errors
from orchestrator.core import specs, states
from worker.models import densenet


def build(spec: specs.JobSpec, num_classes: int) -> densenet.DenseNet:
    """Return the spec's network with weights drawn from torch's global generator.

    Raises:
        StageFailed: user_error, when the spec's numbers make no network.

    """
    try:
        network = densenet.DenseNet(num_classes=num_classes, **dataclasses.asdict(spec.shape))
    except ValueError as error:
        raise errors.StageFailed(
            "The network cannot be built.",
            reason=states.Reason.USER_ERROR,
            why=f"It says: {error}.",
            hint="Choose a larger reduction or growth rate.",
        ) from error
    network.use_memory(spec.memory)
    return network
