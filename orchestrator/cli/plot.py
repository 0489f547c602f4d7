"""`orch plot`: curves of jobs in the terminal, or as a picture."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, picture, render
from orchestrator.core.curves import Axis, Metric

if TYPE_CHECKING:
    from orchestrator.service.curves import Panel

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch plot @latest

orch plot k3f9m2qa p7x2w0cd --metric val_accuracy --x time

orch plot k3f p7x -o curves.svg --metric loss --smooth 0.9
"""


@app.command(epilog=_EXAMPLES)
def plot(
    context: typer.Context,
    jobs: options.Jobs,
    *,
    output: picture.Output = None,
    metric: Annotated[
        list[Metric] | None, typer.Option(help="What to draw; may be given again. loss is that of each step.")
    ] = None,
    x: Annotated[Axis, typer.Option(help="The axis; time: seconds of training, without waiting.")] = Axis.EPOCH,
    smooth: Annotated[
        float,
        typer.Option(min=0, max=0.999, metavar="WEIGHT", help="Weight of the past in a running average; 0: none."),
    ] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Draw the curves of jobs in the terminal, or as a picture.

    Without --metric these are the losses and accuracies of one job, or the validation losses and accuracies of several.
    In a pipe a line is job, metric, x and y.
    """
    from orchestrator.service import curves as service

    to = render.mode(as_json=as_json)
    if output is not None:
        picture.check(output)
    with options.opened(context) as opened:
        found = service.find(opened.store, jobs)
        panels = service.panels(opened.store, found, metrics=metric or (), axis=x, smooth=smooth)
        lacking = service.lacking(opened.store, found, panels, metrics=metric or (), axis=x)
    if lacking is not None and (panels or output is None):
        render.note(f"{lacking.why} {lacking.hint}")
    elif lacking is not None:
        raise lacking
    if output is not None:
        picture.curves(panels, output)
    if output is None or to is render.Mode.JSON:
        show(panels, to=to)
    if output is not None:
        render.talk(f"Drawn to {output}.")


def show(panels: "list[Panel]", *, to: render.Mode) -> None:
    """Print the curves."""
    if to is render.Mode.JSON:
        from orchestrator.service import resultviews

        render.document(resultviews.curves(panels))
    elif to is render.Mode.PIPE:
        for panel in panels:
            for line in panel.lines:
                for x, y in line.curve.points:
                    render.line(line.curve.job, line.curve.metric, x, y)
    else:
        _to_people(panels)


def _to_people(panels: "list[Panel]") -> None:
    from orchestrator.cli import chart

    console = render.console()
    width, colour = console.width, console.color_system is not None
    drawn = [chart.panel(panel, colour=colour, width=chart.room(width)) for panel in panels]
    charts = [one for one in drawn if one is not None]
    for row in chart.together(charts, width=width):
        console.print(row)
    if panels and not charts:
        render.talk("Nothing to draw yet: a curve needs two points, such as two epochs. `orch watch` follows a job.")
