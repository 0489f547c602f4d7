"""`orch watch`: live on a terminal, one line a change in a pipe."""

import sys
from collections.abc import Container
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from orchestrator.cli import options, render, words
from orchestrator.core.jobs import Job

if TYPE_CHECKING:
    from orchestrator.service.context import Context

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch watch k3f9m2qa\n\norch watch @latest --json")
def watch(context: typer.Context, job: options.Job, as_json: options.AsJson = False) -> None:
    """Follow a job live, with its curves.

    It ends when the job has ended, with exit code 0 (succeeded), 5 (failed) or 6 (cancelled). Ctrl-C leaves the job
    alone. In a pipe it prints a line for each change: time, job, what it does, attempt, epoch, done, of how many, unit,
    best accuracy, reason, and the progress in words.
    """
    with options.opened(context) as opened:
        follow(opened, opened.store.find(job).id, to=render.mode(as_json=as_json))


def follow(opened: "Context", job_id: str, *, to: render.Mode) -> None:
    """Follow one job until it has ended, and raise what it is worth; on Ctrl-C say that it goes on."""
    with options.detaching(job_id):
        until_ended(opened, job_id, to=to)


def until_ended(opened: "Context", job_id: str, *, to: render.Mode) -> None:
    """Follow one job until it has ended, and raise what it is worth."""
    from orchestrator.service import follow as service

    if to is render.Mode.TERMINAL and not render.console().is_dumb_terminal:
        from orchestrator.cli import live

        last = live.follow(opened, job_id)
    else:
        last = _lines(opened, job_id, to)
    service.verdict([last])


def _lines(opened: "Context", job_id: str, to: render.Mode) -> Job:
    from orchestrator.service import follow as service

    last: Job | None = None
    mark: tuple[object, ...] = ()
    for job, silent in service.watched(opened.store, opened.settings, job_id, away=options.say_away):
        if to is render.Mode.JSON:
            from orchestrator.service import views

            render.json_line(views.job(job, silent))
        elif (now := _mark(job, silent)) != mark:
            _line(job, silent)
            mark = now
        last = job
    if last is None:
        raise RuntimeError("watched yields the job as it is first")
    return last


def _mark(job: Job, silent: Container[str]) -> tuple[object, ...]:
    """Return what makes a new line: another state, stage, attempt or epoch, another tenth of the stage, or silence."""
    tenth = 10 * job.progress.done // job.progress.total if job.progress.total else 0
    return job.state, job.stage, job.wish, job.attempt, job.progress.epoch, tenth, job.worker in silent


def _line(job: Job, silent: Container[str]) -> None:
    from orchestrator.service import query

    progress = job.progress
    render.line(
        datetime.now(UTC),
        job.id,
        query.doing(job, silent),
        job.attempt,
        progress.epoch,
        progress.done,
        progress.total,
        progress.unit,
        job.best_accuracy,
        job.reason,
        words.progress(job),
    )
    sys.stdout.flush()
