"""What `--json` prints of what a job can name: networks and recipes."""

from typing import Any

from pydantic import Field

from orchestrator.core import networks
from orchestrator.service import views


class ShapePart(views.Part):
    """The numbers that make a network; each is a field of a job."""

    growth_rate: int
    blocks: tuple[int, ...]
    reduction: float
    stem: networks.Stem
    stem_channels: int | None
    bottleneck: int
    transition_relu: bool
    dropout: float


class ModelPart(views.Part):
    """A network that a job can name, and what one picture of `image_size` pixels squared costs it."""

    name: str
    shape: ShapePart
    image_size: int
    classes: int
    parameters: int
    macs: int | None = Field(description="multiply-adds, forward; null where the pictures are too small for it")
    smallest_image: int = Field(description="pixels")


class ModelsPayload(views.Payload):
    """Every network that a job can name."""

    models: tuple[ModelPart, ...]


class RecipePart(views.Part):
    """A recipe, and the fields of a job that it gives."""

    name: str
    summary: str
    fields: dict[str, Any]


class RecipesPayload(views.Payload):
    """The recipes that a job can name."""

    recipes: tuple[RecipePart, ...]
