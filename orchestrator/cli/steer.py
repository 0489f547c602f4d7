"""`orch cancel`, `pause`, `resume` and `retry`: one verb, one effect."""

from typing import Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render
from orchestrator.core.jobs import Job

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:\n\norch cancel k3f9m2qa")
def cancel(context: typer.Context, jobs: options.Jobs, as_json: options.AsJson = False) -> None:
    """End jobs for good.

    A waiting job ends at once. A running one is stopped by its worker within a few seconds; its checkpoints stay.
    """
    from orchestrator.service import control  # noqa: PLC0415 - SQLAlchemy is not for help

    with options.opened(context) as opened:
        for text in jobs:
            _show(control.cancel(opened.settings, opened.store, text), as_json=as_json)


@app.command(epilog="Example:\n\norch pause k3f9m2qa")
def pause(context: typer.Context, jobs: options.Jobs, as_json: options.AsJson = False) -> None:
    """Set jobs aside.

    A waiting job is paused at once. A running one writes a checkpoint at its next step and frees its device; a download
    keeps what has come. Paused jobs stay so until they are resumed or cancelled.
    """
    from orchestrator.service import control  # noqa: PLC0415 - SQLAlchemy is not for help

    with options.opened(context) as opened:
        for text in jobs:
            _show(control.pause(opened.settings, opened.store, text), as_json=as_json)


@app.command(epilog="Example:\n\norch resume k3f9m2qa")
def resume(context: typer.Context, jobs: options.Jobs, as_json: options.AsJson = False) -> None:
    """Let paused jobs go on.

    Each goes on at the very step at which it was paused. A job that is still pausing simply runs on.
    """
    from orchestrator.service import control  # noqa: PLC0415 - SQLAlchemy is not for help

    with options.opened(context) as opened:
        for text in jobs:
            _show_queued(*control.resume(opened.settings, opened.store, text), as_json=as_json)


@app.command(epilog="Examples:\n\norch retry @last-failed\n\norch retry --from-start k3f9m2qa")
def retry(
    context: typer.Context,
    jobs: options.Jobs,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget the checkpoints and train from the first epoch.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Queue failed or cancelled jobs again.

    Each goes on at the stage it had reached, from its last checkpoint.
    """
    from orchestrator.service import control  # noqa: PLC0415 - SQLAlchemy is not for help

    with options.opened(context) as opened:
        for text in jobs:
            queued = control.retry(opened.settings, opened.store, text, from_start=from_start)
            _show_queued(*queued, as_json=as_json)


def _show_queued(job: Job, broker: errors.BrokerUnavailable | None, *, as_json: bool) -> None:
    _show(job, as_json=as_json)
    if broker is not None:
        render.note(f"The broker is away: {broker.why} The job is kept, and workers find it by themselves.")


def _show(job: Job, *, as_json: bool) -> None:
    from orchestrator.service import query  # noqa: PLC0415

    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.json_line(views.job(job))
    elif to is render.Mode.PIPE:
        render.line(job.id, query.doing(job))
    else:
        render.console().print(render.state(f"{query.doing(job)}  {job.id}", of=job.state))
