"""`orch events`."""

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch events k3f9m2qa\n\norch events @latest --json | jq .kind")
def events(context: typer.Context, job: options.Job, as_json: options.AsJson = False) -> None:
    """Print a job's history, with reasons.

    Who did what and when: every change of state, and what else is worth knowing.
    """
    from orchestrator.core.jobs import Event

    with options.opened(context) as opened:
        history = opened.store.events(opened.store.find(job).id)
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import views

        for event in history:
            render.json_line(views.EventPayload.model_validate(event))
        return
    from orchestrator.cli import words

    columns: list[render.Column[Event]] = [
        render.Column(title="WHEN", value=lambda event: event.at, shown=lambda event: words.moment(event.at)),
        render.Column(title="WHAT", value=lambda event: event.kind),
        render.Column(title="TO", value=lambda event: event.new_state, wide=True),
        render.Column(title="STAGE", value=lambda event: event.stage),
        render.Column(title="ATTEMPT", value=lambda event: event.attempt, right=True, wide=True),
        render.Column(title="WHO", value=lambda event: event.actor, elastic=True),
        render.Column(title="REASON", value=lambda event: event.reason),
        render.Column(title="DETAIL", value=lambda event: event.detail, fold=True),
        render.Column(title="RUN", value=lambda event: event.run, right=True, wide=True),
    ]
    render.table(columns, history, to=to)
