"""`orch worker`."""

from typing import Annotated

import typer

from orchestrator.cli import options

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\norch worker\n\norch worker --devices cpu --max-jobs 1\n\norch worker --exit-when-idle"
)
def worker(
    context: typer.Context,
    devices: options.Devices = None,
    slots_per_device: Annotated[int | None, typer.Option(metavar="N", help="Trainings at once on one device.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many jobs.")] = None,
    exit_when_idle: Annotated[bool, typer.Option("--exit-when-idle", help="Stop when nothing waits.")] = False,
) -> None:
    """Run a worker in the foreground.

    Ctrl-C or SIGTERM drains it: trainings write a checkpoint and go back to the queue. A second one stops it now.
    """
    from orchestrator.service import node  # noqa: PLC0415 - settings are not for help

    limit = [] if max_jobs is None else ["--max-jobs", str(max_jobs)]
    idle = ["--exit-when-idle"] if exit_when_idle else []
    settings = options.settings(context, devices=devices, slots_per_device=slots_per_device)
    node.run(settings, *limit, *idle)
