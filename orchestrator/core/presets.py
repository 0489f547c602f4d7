"""What the names of data sets, networks and weights stand for: fields of a job spec."""

from collections.abc import Mapping
from typing import Any

from orchestrator.core import networks, weights

#: What the names of torchvision's data sets begin with.
TORCHVISION = "torchvision:"

_TORCHVISION_SETS: dict[str, dict[str, object]] = {
    "CIFAR10": {"image_size": 32, "crop_padding": 4},
    "CIFAR100": {"image_size": 32, "crop_padding": 4},
    "SVHN": {"image_size": 32, "flip": False, "crop_scale": (0.8, 1.0)},
    "FashionMNIST": {"image_size": 28, "crop_scale": (0.8, 1.0)},
    "MNIST": {"image_size": 28, "flip": False, "crop_scale": (0.8, 1.0)},
    "Flowers102": {},
    "OxfordIIITPet": {},
    "Food101": {},
    "Imagenette": {},
}

#: Data sources with a name, and the fields that each presets.
DATA: dict[str, dict[str, object]] = {
    "cats_and_dogs": {},
    # A mirrored digit is none, and neither is a tenth of one.
    "digits": {"image_size": 32, "flip": False, "crop_scale": (0.8, 1.0)},
    **{f"{TORCHVISION}{name}": fields for name, fields in _TORCHVISION_SETS.items()},
}


def fields(given: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields that the names of weights, data set and network in `given` stand for."""
    data, network = given.get("data"), given.get("network")
    filled: dict[str, object] = {}
    if given.get("weights") == weights.IMAGENET:
        filled |= weights.IMAGENET_FIELDS
    if isinstance(data, str):
        filled |= DATA.get(data, {})
    if isinstance(network, str):
        filled |= networks.NETWORKS.get(network, {})
    return filled
