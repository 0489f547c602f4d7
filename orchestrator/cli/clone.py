"""`orch clone`."""

from typing import Annotated, Any

import typer

from orchestrator.cli import options, render, specflags, submit

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch clone k3f9m2qa\n\norch clone @last-failed --lr 3e-5 --name gentler")
@specflags.add
def clone(
    *,
    context: typer.Context,
    job: options.Job,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name to find it by.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag more; may be given again.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Else that of the first job.")] = None,
    device: options.Device = None,
    gpu_memory: options.GpuMemory = None,
    label: options.Label = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Whose job it is. Else the login name.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone.")] = False,
    as_json: options.AsJson = False,
    fields: dict[str, Any],
) -> None:
    """Queue a job like another one, with some fields changed.

    It trains from the beginning and knows the first one as its parent; tags, priority and what it demands of its worker
    are the same, the name is not. It tells of itself whom ORCH_NOTIFY names.
    """
    from orchestrator.service import clone as service
    from orchestrator.service import query

    with options.opened(context, user=user) as opened:
        done = service.clone(
            opened.settings,
            opened.store,
            job,
            flags=fields,
            name=name,
            tags=tuple(tag or ()),
            priority=priority,
            device=device,
            gpu_memory=gpu_memory,
            labels=label,
        )
        notes = list(submit.notes(done, query.living(opened.store), opened.settings))
    submit.tell(done, notes, quiet=quiet, to=render.mode(as_json=as_json))
