"""`orch status`: everything about one job, or the queue and the workers at a glance."""

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch status\n\norch status @latest\n\norch status k3f --json")
def status(context: typer.Context, job: options.MaybeJob = None, as_json: options.AsJson = False) -> None:
    """Show everything about one job, or the queue at a glance.

    In a pipe each line begins with what it is: job, epoch, checkpoint, evaluation, class, attempt; or state, worker,
    broker, database, job.
    """
    from orchestrator.service import query

    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        if job is None:
            shown = query.GLANCED_AT if to is render.Mode.TERMINAL else None
            overview = query.overview(opened.settings, opened.store, limit=shown)
        else:
            report = query.report(opened.store, job)
    if to is render.Mode.JSON:
        from orchestrator.service import views

        render.document(
            views.overview(overview, opened.settings) if job is None else views.report(report, opened.settings)
        )
    elif job is None:
        from orchestrator.cli import glance

        glance.show(overview, opened.settings, to=to)
    elif to is render.Mode.PIPE:
        from orchestrator.cli import jobpipe

        jobpipe.show(report, opened.settings)
    else:
        from orchestrator.cli import jobpage

        jobpage.show(report, opened.settings)
