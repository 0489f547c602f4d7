"""`orch demo`: the packaged sample from submit to prediction, in a folder of its own."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import render

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.service.context import Context

app = typer.Typer(add_completion=False)

#: What two CPU cores train in less than a minute.
RECIPE = "digits"

_PICTURES = 5

_KILLED = 128  # plus the signal, as shells say it


@app.command(epilog="Examples:\n\norch demo\n\norch --home .orch/demo status @latest")
def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything it makes.")] = Path(".orch/demo"),
) -> None:
    """Train the packaged sample, from submit to prediction.

    Starts a broker, a database and a worker of its own, trains a small network on handwritten digits, shows the
    results, classifies pictures, and stops what it started. It takes about a minute and needs no network connection.
    """
    from orchestrator import config
    from orchestrator.service import context as service
    from orchestrator.service import node

    for number in (signal.SIGTERM, signal.SIGHUP):  # so that it stops what it started
        signal.signal(number, lambda received, _: sys.exit(_KILLED + received))
    settings = config.load(home=folder.absolute())
    _refuse_servers(settings)
    render.address(folder)
    node.need_torch()
    node.prepare(settings)
    with service.opened(settings) as opened:
        _step("Starting the broker and a worker", "orch up -d")
        started = node.start(settings, opened.store)
        try:
            _train_and_show(opened)
        finally:
            if not started.was_running:
                _step("Stopping what was started", "orch down")
                node.stop(settings)
    render.address(None)
    render.talk(f"Everything is in {folder}. `orch up -d` starts a worker that stays.")


def _refuse_servers(settings: "Settings") -> None:
    if not (settings.embedded_database and settings.embedded_broker):
        raise errors.UsageError(
            "The demo keeps everything in a folder of its own, but the settings name other servers.",
            why="ORCH_DATABASE_URL or ORCH_BROKER_URL is set; `orch config show --origin` says where.",
            hint="env -u ORCH_DATABASE_URL -u ORCH_BROKER_URL orch demo",
        )


def _train_and_show(opened: "Context") -> None:
    from orchestrator.cli import jobpage, jobpipe, predict, watch
    from orchestrator.core.jobs import NewJob
    from orchestrator.service import bell, jobfile, query, submit
    from orchestrator.service import predict as predictions

    to = render.mode()
    _step("Submitting a job", f"orch submit --recipe {RECIPE}")
    new = NewJob(spec=jobfile.resolve(flags={}, recipe=RECIPE).spec, user=submit.user(opened.settings), name="demo")
    job = submit.submit(opened.store, new, ring=partial(bell.ring, opened.settings)).job
    _step("Watching it", f"orch watch {job.id}")
    watch.until_ended(opened, job.id, to=to)  # on Ctrl-C it does not go on: its worker is stopped
    _step("What came out", f"orch status {job.id}")
    report = query.report(opened.store, job.id)
    (jobpage if to is render.Mode.TERMINAL else jobpipe).show(report, opened.settings)
    pictures = _some_pictures(Path(report.dataset.path)) if report.dataset else []
    if pictures:
        _step("Classifying pictures that it has not trained on", f"orch predict {job.id} IMAGE…")
        for prediction in predictions.predict(opened.settings, opened.store, job.id, pictures):
            predict.show(prediction, to=to)


def _some_pictures(data: Path) -> list[Path]:
    """Return one validation picture of each of the first classes."""
    from orchestrator.service import predict as predictions

    classes = sorted({file.parent for file in predictions.pictures([data]) if "val" in file.parent.parent.name})
    return [min(folder.iterdir()) for folder in classes[:_PICTURES]]


def _step(what: str, command: str) -> None:
    render.talk(f"\n{what}")
    render.following([command])
