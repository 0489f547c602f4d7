"""`orch doctor`."""

from typing import TYPE_CHECKING

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from orchestrator.service.doctor import Check

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:\n\norch doctor")
def doctor(context: typer.Context, as_json: options.AsJson = False) -> None:
    """Find out what is missing or broken.

    One line each, with a fix. The exit code is 1 where something does not work; warnings are no failure.
    """
    from orchestrator.service import doctor as service  # noqa: PLC0415 - SQLAlchemy is not for help

    to = render.mode(as_json=as_json)
    checks = list(service.examine(options.settings(context)))
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.document(views.DoctorPayload(checks=tuple(views.CheckPart.model_validate(check) for check in checks)))
    elif to is render.Mode.PIPE:
        for check in checks:
            render.line(check.level, check.name, check.found, check.fix)
    else:
        columns = [
            render.Column[service.Check](
                title="", value=lambda check: check.level, shown=lambda check: render.state(check.level)
            ),
            render.Column[service.Check](title="CHECK", value=lambda check: check.name),
            render.Column[service.Check](title="FOUND", value=lambda check: check.found, shown=_found, fold=True),
        ]
        render.table(columns, checks, to=to)
    broken = sum(check.level == service.Level.FAIL for check in checks)
    if broken:
        raise errors.OrchError(f"{words.plural(broken, 'thing')} to fix.")


def _found(check: "Check") -> str:
    return f"{check.found}\ntry: {check.fix}" if check.fix else check.found
