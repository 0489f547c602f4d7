"""`orch doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from orchestrator.core.findings import Finding
    from orchestrator.service.checks import Check

app = typer.Typer(add_completion=False)


Audit = Annotated[
    bool,
    typer.Option("--audit", help="Check instead what orch promises about jobs, checkpoints and leftovers."),
]


@app.command(epilog="Examples:\n\norch doctor\n\norch doctor --audit")
def doctor(context: typer.Context, audit: Audit = False, as_json: options.AsJson = False) -> None:
    """Find out what is missing or broken.

    Prints a line for each check, with a fix where one is needed. The exit code is 1 where something does not work;
    warnings do not count. With --audit it checks the histories of all jobs, their checkpoints on this host and what was
    left behind, and changes nothing: 0 where all promises hold, else 1.
    """
    if audit:
        _audit(context, to=render.mode(as_json=as_json))
        return
    from orchestrator.service import checks
    from orchestrator.service import doctor as service

    to = render.mode(as_json=as_json)
    found = list(service.examine(options.settings(context)))
    if to is render.Mode.JSON:
        from orchestrator.service import careviews

        render.document(
            careviews.DoctorPayload(checks=tuple(careviews.CheckPart.model_validate(check) for check in found))
        )
    elif to is render.Mode.PIPE:
        for check in found:
            render.line(check.level, check.name, check.found, check.fix)
    else:
        columns = [
            render.Column[checks.Check](
                title="", value=lambda check: check.level, shown=lambda check: render.state(check.level)
            ),
            render.Column[checks.Check](title="CHECK", value=lambda check: check.name),
            render.Column[checks.Check](title="FOUND", value=lambda check: check.found, shown=_found, fold=True),
        ]
        render.table(columns, found, to=to)
    broken = sum(check.level == checks.Level.FAIL for check in found)
    if broken:
        raise errors.OrchError(f"{words.plural(broken, 'thing')} to fix.")


def _found(check: "Check") -> str:
    return f"{check.found}\ntry: {render.addressed(check.fix)}" if check.fix else check.found


def _audit(context: typer.Context, *, to: render.Mode) -> None:
    from orchestrator.service import audit as service

    with options.opened(context) as opened:
        findings = service.audit(opened.settings, opened.store)
    if to is render.Mode.JSON:
        from orchestrator.service import careviews

        parts = tuple(careviews.FindingPart.model_validate(finding) for finding in findings)
        render.document(careviews.AuditPayload(findings=parts))
    elif findings or to is render.Mode.PIPE:
        columns: list[render.Column[Finding]] = [
            render.Column(title="WHAT", value=lambda finding: finding.kind),
            render.Column(title="JOB", value=lambda finding: finding.job),
            render.Column(title="FOUND", value=lambda finding: finding.sentence, fold=True),
        ]
        render.table(columns, findings, to=to)
    else:
        render.console().print(render.state("all promises hold", of="ok"))
    if findings:
        raise errors.OrchError(
            f"{words.plural(len(findings), 'promise')} {'is' if len(findings) == 1 else 'are'} broken.",
            hint="`orch events JOB` tells the history of a job.",
        )
