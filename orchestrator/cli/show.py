"""`orch show`: what a job is, and what its result stands on."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render

if TYPE_CHECKING:
    from orchestrator.core.specs import JobSpec
    from orchestrator.service.show import Shown

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch show k3f9m2qa

orch show @latest --env

orch show @latest --env --json

orch show k3f9m2qa --diff | git apply
"""


@app.command(epilog=_EXAMPLES)
def show(
    context: typer.Context,
    job: options.Job,
    *,
    env: Annotated[
        bool,
        typer.Option(
            "--env", help="Its git commit, its data, and the versions and devices that its attempts trained with."
        ),
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="What was not committed, in the form of `git apply`; secrets are masked.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the spec of a job, and where each value comes from.

    With --env in a pipe each line begins with what it is: job, source, attempt, version. ORCH_GIT says how much a job
    keeps of the repository that it is submitted in.
    """
    from orchestrator.service import show as service

    if diff and (env or as_json):
        raise errors.UsageError("--diff prints the difference alone.", hint="orch show JOB --env --json holds it, too.")
    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        shown = service.show(opened.store, job)
    if diff:
        _print_diff(shown)
    elif to is render.Mode.JSON:
        from orchestrator.service import provenanceviews

        render.document(provenanceviews.provenance(shown) if env else provenanceviews.spec(shown))
    elif not env:
        table(shown.job.spec, shown.origins, to=to)
    elif to is render.Mode.PIPE:
        for kind, *fields in _facts(shown):
            render.line(kind, *fields)
    else:
        render.console().print(render.pairs(_pair(*fact) for fact in _facts(shown)))


def table(spec: "JobSpec", origins: Mapping[str, str], *, to: render.Mode) -> None:
    """Print a spec, and where each value comes from."""
    values = spec.masked().model_dump(mode="json")
    columns = [
        render.Column[str](title="FIELD", value=str),
        render.Column[str](title="VALUE", value=values.get),
        render.Column[str](title="FROM", value=origins.get),
    ]
    render.table(columns, values, to=to)


def _print_diff(shown: "Shown") -> None:
    found = shown.source
    if found is None or found.diff is None:
        clean = found is not None and found.dirty is False
        raise errors.NotFound(
            f"Job {shown.job.id} has no difference.",
            why=(found.remark if found else None) or ("All was committed." if clean else "None was kept."),
            hint="`orch show --env` says what is known of the working folder.",
        )
    sys.stdout.write(render.clean(found.diff) if sys.stdout.isatty() else found.diff)
    if found.remark:
        render.note(f"{found.remark[0].upper()}{found.remark[1:]}.")


def _pair(kind: object, name: object, *values: object) -> tuple[str, str]:
    numbered = f"{kind} {name}" if kind in {"attempt", "version"} else f"{name}"
    return numbered.replace("_", " "), ", ".join(map(render.raw, values))


def _facts(shown: "Shown") -> Iterator[tuple[object, ...]]:
    yield "job", "id", shown.job.id
    yield "job", "spec_hash", shown.job.spec_hash
    yield "job", "data_hash", shown.job.data_hash
    found = shown.source
    if found is not None:
        yield "source", "commit", found.commit
        yield "source", "branch", found.branch
        yield "source", "dirty", found.dirty
        if found.diff_bytes is not None:
            yield "source", "diff_bytes", found.diff_bytes
            yield "source", "diff_sha256", found.diff_sha256
        if found.remark:
            yield "source", "remark", found.remark
    for attempt in shown.trained:
        if (used := attempt.environment) is not None:
            numbers = (f"threads={used.threads}", used.layout, used.precision, f"seed={used.seed}")
            modes = ("compiled", "tf32", "cudnn_benchmark")
            switched = tuple(f"{name}={'on' if getattr(used, name) else 'off'}" for name in modes)
            where = (attempt.host, used.device, used.cpu, used.instructions)
            yield "attempt", attempt.attempt, *where, *numbers, *switched
            yield "version", attempt.attempt, *(f"{name}={version}" for name, version in sorted(used.versions.items()))
