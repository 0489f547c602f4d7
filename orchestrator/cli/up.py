"""`orch up` and `orch down`: everything on one machine."""

import sys
from typing import Annotated

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch up -d\n\norch up --systemd > ~/.config/systemd/user/orch.service")
def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything runs.")] = False,
    devices: options.Devices = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="Print a systemd user unit; start nothing.")] = False,
) -> None:
    """Start broker, database and worker on this machine.

    After a reboot it goes on where things stood. Without -d it stays in the foreground, and Ctrl-C drains it.
    """
    from orchestrator.service import node

    settings = options.settings(context, devices=devices)
    if systemd:
        sys.stdout.write(node.unit(settings))
        return
    node.prepare(settings)
    with options.opened(context, devices=devices) as opened:  # also says here what is wrong with the database
        try:
            started = node.start(settings, opened.store) if detach else None
        except KeyboardInterrupt:
            render.talk("\nNothing was started: a node that had begun to start has ended again.")
            raise
    if started is None:
        node.run(settings, node.ONLY_ONE)
        return
    render.talk(f"{'Already up' if started.was_running else 'Up'}: node {started.pid}, its log is {started.log}.")
    render.following(["orch status", "orch submit --data digits", "orch down"])


@app.command(epilog="Example:\n\norch down --timeout 300")
def down(
    context: typer.Context,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Drain for so long at most.", show_default="ORCH_DRAIN"),
    ] = None,
) -> None:
    """Drain the worker of this machine and stop its broker.

    Running trainings write a checkpoint and go back to the queue; jobs, data and checkpoints stay.
    """
    from orchestrator.service import node

    stopped = node.stop(options.settings(context), deadline=timeout)
    if stopped.pid is None:
        render.talk("No worker was running here." + (" The broker is stopped." if stopped.broker else ""))
    elif stopped.killed:
        render.note(f"Node {stopped.pid} did not drain in time and was stopped: its jobs are taken up again later.")
    else:
        render.talk(f"Down: node {stopped.pid} has drained.")
