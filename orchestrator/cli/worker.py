"""`orch worker`: run one, look at all of them, steer them."""

from typing import Annotated

import typer

from orchestrator.cli import options, render
from orchestrator.core.states import WorkerWish

_RUN_EXAMPLES = """
Examples:

orch worker

orch worker --devices cpu --max-jobs 1

orch worker --exit-when-idle

orch worker drain desk-1
"""

app = typer.Typer(add_completion=False, invoke_without_command=True, epilog=_RUN_EXAMPLES)

_Name = Annotated[str, typer.Argument(metavar="WORKER", help="Its id, as `orch worker list` shows it.")]


@app.callback()
def worker(
    context: typer.Context,
    devices: options.Devices = None,
    slots_per_device: Annotated[int | None, typer.Option(metavar="N", help="Trainings at once on one device.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many jobs.")] = None,
    exit_when_idle: Annotated[bool, typer.Option("--exit-when-idle", help="End when no job waits.")] = False,
) -> None:
    """Run a worker in the foreground, or steer workers.

    Ctrl-C or SIGTERM drains it: trainings write a checkpoint and go back to the queue. A second Ctrl-C stops it at
    once.
    """
    if context.invoked_subcommand is not None:
        return
    from orchestrator.service import node

    limit = [] if max_jobs is None else ["--max-jobs", str(max_jobs)]
    idle = ["--exit-when-idle"] if exit_when_idle else []
    settings = options.settings(context, devices=devices, slots_per_device=slots_per_device)
    node.run(settings, *limit, *idle)


@app.command("list", epilog="Examples:\n\norch worker list\n\norch worker list --json")
def list_(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List the workers that live, and those that ended within the last day."""
    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        workers = opened.store.workers()
        settings = opened.settings
    if to is render.Mode.JSON:
        from orchestrator.service import queueviews

        for one in workers:
            render.json_line(queueviews.worker(one, settings))
        return
    from orchestrator.cli import glance

    if workers or to is render.Mode.PIPE:
        render.table(glance.worker_columns(settings), workers, to=to)
    else:
        render.talk("No worker has run within the last day. `orch up -d` starts one here.")


@app.command(epilog="Example:\n\norch worker drain desk-1")
def drain(context: typer.Context, name: _Name) -> None:
    """Let a worker finish what it has and take nothing more.

    It claims nothing from this moment on, and is shown as draining within seconds. Its jobs run on to the end of their
    stage; `orch worker resume` lets it take jobs again.
    """
    _wish(context, name, WorkerWish.DRAIN, said="draining")


@app.command(epilog="Example:\n\norch worker resume desk-1")
def resume(context: typer.Context, name: _Name) -> None:
    """Let a worker that drains take jobs again."""
    _wish(context, name, WorkerWish.RUN, said="takes jobs")


@app.command(epilog="Example:\n\norch worker forget desk-0")
def forget(context: typer.Context, name: _Name) -> None:
    """Remove a worker that has stopped or was lost from the list."""
    with options.opened(context) as opened:
        opened.store.forget_worker(name)
    render.line(name, "forgotten")


def _wish(context: typer.Context, name: str, wish: WorkerWish, *, said: str) -> None:
    with options.opened(context) as opened:
        opened.store.wish_worker(name, wish)
    render.line(name, said)
