"""`orch db`."""

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Upgrade or check the database.")


@app.command(epilog="Example:\n\nORCH_DATABASE_URL=postgresql://… orch db upgrade")
def upgrade(context: typer.Context, as_json: options.AsJson = False) -> None:
    """Bring the database to the schema of this orch.

    The embedded database does this by itself; a server's waits for this command.
    """
    from orchestrator.service import schema

    old, new = schema.upgrade(options.settings(context))
    _show(old, new, "already at" if old == new else f"upgraded from {old or 'nothing'} to", as_json=as_json)


@app.command(epilog="Example:\n\norch db check && orch worker")
def check(context: typer.Context) -> None:
    """Exit with 4 where the database has not the schema that this orch expects."""
    from orchestrator.service import schema

    schema.check(options.settings(context))
    render.talk("The database is as this orch expects it.")


@app.command(epilog="Example:\n\norch db current")
def current(context: typer.Context, as_json: options.AsJson = False) -> None:
    """Print the version of the database's schema, and the one that this orch expects."""
    from orchestrator.service import schema

    found, wanted = schema.current(options.settings(context))
    _show(found, wanted, f"{found or 'no schema yet'}, wanted:", as_json=as_json)


def _show(found: str | None, wanted: str | None, said: str, *, as_json: bool) -> None:
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import careviews

        render.document(careviews.SchemaPayload(found=found, wanted=wanted))
    elif to is render.Mode.PIPE:
        render.line(found, wanted)
    else:
        render.console().print(f"schema {said} {wanted}")
