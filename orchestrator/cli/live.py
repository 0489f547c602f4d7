"""The live picture of a job on a terminal: bar, rate, curves of loss and accuracy."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import plotext
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import jobrows, render, words
from orchestrator.core.jobs import Job
from orchestrator.service import follow as service
from orchestrator.service import query

if TYPE_CHECKING:
    from orchestrator.service.context import Context

_PLOT_HEIGHT = 11
_TICKS = 6

#: Markers differ, so that the lines can be told apart without colours.
_LINES = (("braille", "cyan"), ("dot", "green"))

#: Narrower terminals draw the two curves below each other.
_SIDE_BY_SIDE = 100


def follow(opened: "Context", job_id: str) -> Job:
    """Draw the job until it has ended; return it as it is then."""
    console = render.console()
    reader = query.CurveReader(opened.store, job_id)
    last: Job | None = None
    with Live(console=console, auto_refresh=False) as live:
        for job in service.changes(opened.store, job_id):
            curves = reader.read(job)
            live.update(
                picture(job, curves, width=console.width, colour=console.color_system is not None), refresh=True
            )
            last = job
    if last is None:
        raise RuntimeError("changes yields the job as it is first")
    return last


def picture(job: Job, curves: query.Curves, *, width: int, colour: bool) -> RenderableType:
    """Return the picture of a job."""
    parts: list[RenderableType] = [_head(job), _bar(job, width)]
    drawn = [
        _plot("training loss by step", [("loss", list(curves.losses))], colour=colour, width=_plot_width(width)),
        _plot("accuracy by epoch", _accuracies(curves), colour=colour, width=_plot_width(width)),
    ]
    plots = [plot for plot in drawn if plot is not None]
    if plots and width >= _SIDE_BY_SIDE:
        side_by_side = Table.grid(padding=(0, 2))
        side_by_side.add_row(*plots)
        parts.append(side_by_side)
    else:
        parts.extend(plots)
    return Group(*parts)


def _head(job: Job) -> Text:
    name = f"  {job.name}" if job.name else ""
    best = f"  best {words.percent(job.best_accuracy)}" if job.best_accuracy is not None else ""
    took = words.duration(jobrows.took(job, datetime.now(UTC)))
    return Text.assemble(render.state(query.doing(job), of=job.state), f"  {job.id}{name}{best}  {took}".rstrip())


def _bar(job: Job, width: int) -> RenderableType:
    progress = job.progress
    eta = query.eta(job)
    said = [words.progress(job), words.rate(job) if not job.final else "", f"{words.duration(eta)} left" if eta else ""]
    line = Table.grid(padding=(0, 2))
    share = 1.0 if job.state == "succeeded" else progress.done / progress.total if progress.total else 0.0
    line.add_row(ProgressBar(total=1.0, completed=share, width=min(40, width // 3)), ", ".join(filter(None, said)))
    return line


def _plot_width(width: int) -> int:
    return max(20, (width - 4) // 2 if width >= _SIDE_BY_SIDE else width - 1)


def _accuracies(curves: query.Curves) -> list[tuple[str, list[tuple[int, float]]]]:
    return [
        (split, [(metric.epoch, metric.accuracy) for metric in curves.epochs if metric.split == split])
        for split in ("train", "val")
    ]


def _plot(title: str, lines: list[tuple[str, list[tuple[int, float]]]], *, colour: bool, width: int) -> Text | None:
    if not any(len(points) > 1 for _, points in lines):
        return None
    plotext.clear_figure()
    plotext.plotsize(width, _PLOT_HEIGHT)
    plotext.title(title)
    plotext.theme("clear")
    for number, (name, points) in enumerate(lines):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        label = name if len(lines) > 1 else None
        marker, hue = _LINES[number]
        plotext.plot(xs, ys, label=label, marker=marker, color=hue if colour else None)
    steps = sorted({x for _, points in lines for x, _ in points})
    plotext.xticks(steps[:: math.ceil(len(steps) / _TICKS)])
    return Text.from_ansi(plotext.build().rstrip("\n"))
