"""The live picture of a job on a terminal: bar, rate, curves of loss and accuracy."""

import functools
from collections.abc import Container
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import chart, jobrows, options, render, words
from orchestrator.core.jobs import Job
from orchestrator.service import follow as service
from orchestrator.service import query

if TYPE_CHECKING:
    from orchestrator.service.context import Context


def follow(opened: "Context", job_id: str) -> Job:
    """Draw the job until it has ended; return it as it is then."""
    console = render.console()
    reader = query.CurveReader(opened.store, job_id)
    colour = console.color_system is not None
    last: Job | None = None
    with Live(console=console, auto_refresh=False) as live:
        for job, silent in service.watched(opened.store, opened.settings, job_id, away=options.say_away):
            curves = service.patiently(functools.partial(reader.read, job), options.say_away)
            live.update(picture(job, curves, silent=silent, width=console.width, colour=colour), refresh=True)
            last = job
    if last is None:
        raise RuntimeError("watched yields the job as it is first")
    return last


def picture(job: Job, curves: query.Curves, *, silent: Container[str], width: int, colour: bool) -> RenderableType:
    """Return the picture of a job; `silent` are the ids of workers that are not heard of."""
    room = chart.room(width)
    drawn = [
        chart.chart("training loss by step", [chart.Line(points=curves.losses)], colour=colour, width=room),
        chart.chart("accuracy by epoch", _accuracies(curves), colour=colour, width=room),
    ]
    charts = [one for one in drawn if one is not None]
    used = words.usage(curves.epochs)
    uses = [Text(used, style="dim")] if used else []
    return Group(_head(job, silent), _bar(job, silent, width), *uses, *chart.together(charts, width=width))


def _head(job: Job, silent: Container[str]) -> Text:
    name = f"  {job.name}" if job.name else ""
    best = f"  best {words.percent(job.best_accuracy)}" if job.best_accuracy is not None else ""
    took = words.duration(jobrows.took(job, datetime.now(UTC)))
    return Text.assemble(jobrows.state(job, silent), f"  {job.id}{name}{best}  {took}".rstrip())


def _bar(job: Job, silent: Container[str], width: int) -> RenderableType:
    progress = job.progress
    said = [words.progress(job)]
    if not job.final and job.worker not in silent:  # what is not heard of need not go on
        eta = query.eta(job)
        said += [words.rate(job), f"{words.duration(eta)} left" if eta else ""]
    line = Table.grid(padding=(0, 2))
    share = 1.0 if job.state == "succeeded" else progress.done / progress.total if progress.total else 0.0
    line.add_row(ProgressBar(total=1.0, completed=share, width=min(40, width // 3)), ", ".join(filter(None, said)))
    return line


def _accuracies(curves: query.Curves) -> list[chart.Line]:
    return [
        chart.Line(
            label=split, points=[(metric.epoch, metric.accuracy) for metric in curves.epochs if metric.split == split]
        )
        for split in ("train", "val")
    ]
