"""The networks that a job can name, by what JobSpec makes of each name."""

from orchestrator.core import networks, specs


def models(*, image_size: int | None = None, classes: int | None = None) -> list[networks.Model]:
    """Return every network with its cost, for these pictures or for those that it was published with."""
    return [
        networks.model(name, specs.JobSpec(network=name).shape, image_size=image_size, classes=classes)
        for name in networks.NETWORKS
    ]
