"""`orch samples`: validation pictures with what a network makes of them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, picture, progress, render, words

if TYPE_CHECKING:
    from orchestrator.service.samples import Sample

app = typer.Typer(add_completion=False)

#: Pictures on a sheet, at most.
_MOST = 200


class Which(StrEnum):
    """Which pictures."""

    WORST = "worst"
    BEST = "best"
    RANDOM = "random"


@app.command(
    epilog="Examples:\n\norch samples @latest -o worst.png\n\norch samples k3f9m2qa -n 30 --which random --json"
)
def samples(
    context: typer.Context,
    job: options.Job,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Draw a contact sheet, .png or .jpg. A file there is replaced."
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=_MOST, metavar="N", help="How many pictures.")] = 12,
    which: Annotated[
        Which, typer.Option(help="worst, best: by the probability of the true class; random: by the job's seed.")
    ] = Which.WORST,
    as_json: options.AsJson = False,
) -> None:
    """Show validation pictures, and what a job's network takes them for.

    A line is picture, true class, predicted class and the probabilities of both. The data set must be on this host.
    """
    from orchestrator.service import samples as service

    if output is not None:
        picture.check_target(output, picture.SHEETS)
    to, told = render.mode(as_json=as_json), progress.Lines()
    with options.opened(context) as opened:
        for found in service.samples(opened.settings, opened.store, job, which=which, count=number, output=output):
            if isinstance(found, service.Sample):
                _show(found, to)
            else:
                told(found.done, found.total, found.unit)
    if output is not None:
        render.talk(f"Drawn to {output}.")


def _show(sample: "Sample", to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import resultviews

        render.json_line(resultviews.SamplePayload.model_validate(sample))
    elif to is render.Mode.PIPE:
        render.line(sample.image, sample.true, sample.predicted, sample.true_probability, sample.probability)
    else:
        said = "right" if sample.true == sample.predicted else f"taken for {sample.predicted}"
        sure = words.percent(sample.probability)
        render.console().print(render.clean(f"{sample.true:<12} {said}, {sure}  {sample.image}"), soft_wrap=True)
