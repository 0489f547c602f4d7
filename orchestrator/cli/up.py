"""`orch up` and `orch down`: everything on one machine."""

import sys
from typing import Annotated

import typer

from orchestrator.cli import options, render, words

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch up -d\n\norch up --systemd > ~/.config/systemd/user/orch.service")
def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything runs, and let it run on.")
    ] = False,
    devices: options.Devices = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="Print a systemd user unit; start nothing.")] = False,
) -> None:
    """Start broker, database and worker on this machine.

    After a reboot it goes on where things stood. Without -d it stays in the foreground: Ctrl-C drains it, a second
    Ctrl-C stops it at once.
    """
    from orchestrator.service import node, unit

    settings = options.settings(context, devices=devices)
    if systemd:
        sys.stdout.write(unit.of_node(settings))
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
    render.following(["orch status", "orch submit --recipe digits", "orch down"])


@app.command(epilog="Example:\n\norch down --timeout 300")
def down(
    context: typer.Context,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0, max=86400, metavar="SECONDS", help="How long trainings may take for it.", show_default="ORCH_DRAIN"
        ),
    ] = None,
) -> None:
    """Drain the worker of this machine and stop its broker.

    Running trainings finish their step, write a checkpoint and go back to the queue; jobs, data and checkpoints stay.
    A training that is too slow for that is ended, and repeats the steps since its last checkpoint: orch says how many
    jobs will.
    """
    from orchestrator.service import node

    try:
        stopped = node.stop(options.settings(context), deadline=timeout)
    except KeyboardInterrupt:
        render.talk("\nA node that was told to go drains on: `orch down` waits for it again, and stops the broker.")
        raise
    if stopped.pid is None:
        render.talk("No worker was running here." + (" The broker is stopped." if stopped.broker else ""))
    elif stopped.killed:
        render.note(f"Node {stopped.pid} did not drain in time and was stopped: its jobs are taken up again later.")
    elif stopped.unsaved:
        jobs = words.plural(stopped.unsaved, "job")
        render.note(
            f"Down: node {stopped.pid} has ended, but {jobs} had not saved all in time and will repeat the steps since "
            "the last checkpoint. A longer --timeout (or ORCH_DRAIN) lets a step end."
        )
    elif stopped.unsaved is None:
        render.note(f"Down: node {stopped.pid} has ended; the database cannot be asked whether its jobs saved all.")
    else:
        render.talk(f"Down: node {stopped.pid} has drained.")
