"""`orch models`."""

from typing import Annotated

import typer

from orchestrator.cli import options, render
from orchestrator.core import networks

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch models

orch models --image-size 64 --classes 2

orch models | sort -t "$(printf '\\t')" -k2n | head -3
"""


@app.command(epilog=_EXAMPLES)
def models(
    image_size: Annotated[
        int | None, typer.Option(min=1, max=2048, metavar="N", help="Side of a picture in pixels; else as published.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, metavar="N", help="Number of classes; else as published.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the networks that a job can name, and what each costs.

    Multiply-adds are those of one picture, forward; training takes about three times as many.

    Each number of a network is also an option of `orch submit`: --growth-rate, --blocks, --reduction, --bottleneck,
    --stem, --stem-channels, --transition-relu, --dropout.
    """
    from orchestrator.service import models as service

    known = service.models(image_size=image_size, classes=classes)
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import catalogviews

        parts = tuple(catalogviews.ModelPart.model_validate(model) for model in known)
        render.document(catalogviews.ModelsPayload(models=parts))
        return
    render.table(_columns(), known, to=to)


def _columns() -> "list[render.Column[networks.Model]]":
    column = render.Column[networks.Model]
    return [
        column(title="NETWORK", value=lambda model: model.name),
        column(
            title="PARAMETERS",
            value=lambda model: model.parameters,
            shown=lambda model: f"{model.parameters:,}",
            right=True,
        ),
        column(title="MULTIPLY-ADDS", value=lambda model: model.macs, shown=_macs, right=True),
        column(title="PIXELS", value=lambda model: model.image_size, right=True),
        column(title="CLASSES", value=lambda model: model.classes, right=True),
        column(title="GROWTH", value=lambda model: model.shape.growth_rate, right=True, wide=True),
        column(title="BLOCKS", value=lambda model: model.shape.blocks, wide=True),
        column(title="STEM", value=lambda model: model.shape.stem, wide=True),
        column(title="FROM PIXELS", value=lambda model: model.smallest_image, right=True, wide=True),
    ]


def _macs(model: networks.Model) -> str:
    return "too small" if model.macs is None else f"{model.macs / 1e9:.3f} G"
