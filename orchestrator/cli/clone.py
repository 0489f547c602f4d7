"""`orch clone`."""

from typing import Annotated, Any

import typer

from orchestrator.cli import options, render, specflags, submit

app = typer.Typer(add_completion=False)


_EXAMPLES = """
Examples:

orch clone k3f9m2qa

orch clone @last-failed --lr 3e-5 --name gentler

orch clone k3f9m2qa --epochs 20 --dry-run

orch clone k3f9m2qa --memory lean --after k3f9m2qa:any
"""


@app.command(epilog=_EXAMPLES)
@specflags.add
def clone(
    *,
    context: typer.Context,
    job: options.Job,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name to find it by.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag beside those of JOB; may be given again.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="As in `orch submit`. Else the priority of JOB.")
    ] = None,
    after: options.After = None,
    not_before: options.NotBefore = None,
    device: options.Device = None,
    gpu_memory: options.GpuMemory = None,
    label: options.Label = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose job it is, if not the login's; users take turns.")
    ] = None,
    wait: options.Wait = False,
    follow: options.Follow = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    fields: dict[str, Any],
) -> None:
    """Queue a job like another one, with some fields changed.

    It trains from the beginning. Fields, tags, priority and what it demands of its worker are those of JOB, unless an
    option says otherwise; it has no name unless one is given. It notifies whom ORCH_NOTIFY names, not whom JOB does.
    """
    from orchestrator.service import clone as service
    from orchestrator.service import query
    from orchestrator.service import submit as submitting

    to = render.mode(as_json=as_json)
    with options.opened(context, user=user) as opened:
        likeness = service.like(
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
            not_before=options.moment(not_before),
        )
        if dry_run:
            from orchestrator.service import rehearsal

            rehearsed = rehearsal.rehearse(opened.settings, likeness.new, after=after or [], reuse=False)
            submit.show_dry_run(likeness.resolved, rehearsed, [], to=to)
            return
        with submit.told_at_any_rate() as stored:
            done = service.clone(opened.settings, opened.store, likeness, after=after or [], stored=stored.append)
            with submitting.naming(done.job):
                notes = list(submit.notes(done, query.living(opened.store), opened.settings))
            submit.tell(done, notes, quiet=quiet, to=to)
        submit.stay(opened, done.job.id, follow=follow, wait=wait, quiet=quiet, to=to)
