"""`orch top`: workers, their slots and the jobs in them, live."""

import os
import sys
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator import config
    from orchestrator.core.jobs import Job
    from orchestrator.service.top import Top, Use

app = typer.Typer(add_completion=False)

#: Lines of a frame beside those of workers and jobs: sums, titles, gaps, what waits.
_LINES = 8


@app.command(epilog="Examples:\n\norch top\n\norch top --interval 0.5\n\norch top --json | jq .busy")
def top(
    context: typer.Context,
    *,
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="Seconds between two looks.")
    ] = 2,
    frames: Annotated[
        int | None, typer.Option("-n", "--frames", min=1, metavar="N", help="Look so many times, then end.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show workers, their slots and the jobs in them, live.

    q or Ctrl-C ends it. In a pipe it looks once, and each line begins with what it is: slots, worker, job.
    """
    from orchestrator.service import top as service

    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        if to is render.Mode.JSON:
            from orchestrator.service import queueviews

            render.document(queueviews.top(service.top(opened.settings, opened.store), opened.settings))
        elif to is render.Mode.PIPE:
            _to_pipe(service.top(opened.settings, opened.store), opened.settings)
        else:
            _live(lambda: service.top(opened.settings, opened.store), opened.settings, interval, frames)


def _to_pipe(found: "Top", settings: "config.Settings") -> None:
    from orchestrator.service import query

    silent = query.silent_ids(found.overview.workers, settings)
    render.line("slots", found.busy, found.slots, found.rate)
    render.table(_worker_columns(settings), found.uses, to=render.Mode.PIPE, prefix="worker")
    render.table(_job_columns(silent), found.running, to=render.Mode.PIPE, prefix="job")


def _live(look: "Callable[[], Top]", settings: "config.Settings", interval: float, frames: int | None) -> None:
    """Draw again and again, on a screen of its own that is gone afterwards; what is drawn once stays."""
    from rich.live import Live

    console = render.console()
    size = console.size
    if frames == 1 or console.is_dumb_terminal:
        console.print(frame(look(), settings, width=size.width, height=size.height))
        return
    with _keys() as pressed, Live(console=console, auto_refresh=False, screen=True) as live:
        try:
            while True:
                live.update(frame(look(), settings, width=console.width, height=console.height), refresh=True)
                frames = None if frames is None else frames - 1
                if frames == 0 or pressed(interval):
                    return
        except KeyboardInterrupt:
            return


@contextmanager
def _keys() -> "Iterator[Callable[[float], bool]]":
    """Yield what waits so many seconds for a q; where stdin is no terminal, it only waits."""
    if not sys.stdin or not sys.stdin.isatty():
        yield _waited
        return
    import select
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                keys = os.read(terminal, 1024)  # past the buffer of stdin, which would hide from select what it holds
                if not keys or b"q" in keys.lower():
                    return True
        return False

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _waited(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def frame(found: "Top", settings: "config.Settings", *, width: int, height: int) -> "RenderableType":
    """Return a frame that fits the terminal."""
    from rich.console import Group
    from rich.text import Text

    from orchestrator.service import query

    silent = query.silent_ids(found.overview.workers, settings)
    room = max(2, height - _LINES)
    workers, running = found.uses[: room // 2], found.running[: max(1, room - min(len(found.uses), room // 2))]
    rate = f", {found.rate:,.0f} images/s" if found.rate else ""
    parts: list[RenderableType] = [
        Text(
            f"{found.busy} of {words.plural(found.slots, 'slot')} busy{rate}   "
            f"{len(found.running)} running, {len(found.waiting)} waiting"
        ),
        "",
        render.grid(_worker_columns(settings), workers, width=width)
        if workers
        else Text("No worker is running: `orch up -d` starts one here."),
    ]
    if running:
        parts += ["", render.grid(_job_columns(silent), running, width=width)]
    hidden = len(found.uses) - len(workers) + len(found.running) - len(running)
    if hidden:
        parts.append(Text(f"and {hidden} more", style="dim"))
    return Group(*parts)


def _worker_columns(settings: "config.Settings") -> "list[render.Column[Use]]":
    from orchestrator.service import query

    return [
        render.Column(title="WORKER", value=lambda use: use.worker.id),
        render.Column(
            title="STATE",
            value=lambda use: query.standing(use.worker, settings),
            shown=lambda use: render.state(query.standing(use.worker, settings)),
        ),
        render.Column(title="BUSY", value=lambda use: use.busy, right=True),
        render.Column(title="SLOTS", value=lambda use: use.slots, right=True),
        render.Column(title="DEVICES", value=lambda use: use.worker.devices, elastic=True),
        render.Column(title="HOST", value=lambda use: use.worker.identity.host, wide=True, elastic=True),
        render.Column(
            title="HEARD OF",
            value=lambda use: use.worker.silence,
            shown=lambda use: words.since(use.worker.silence),
            right=True,
        ),
    ]


def _job_columns(silent: Container[str]) -> "list[render.Column[Job]]":
    from orchestrator.cli import jobrows
    from orchestrator.service import query

    def eta(job: "Job") -> float | None:
        return None if job.worker in silent else query.eta(job)

    return [
        render.Column(title="JOB", value=lambda job: job.id),
        render.Column(
            title="STATE", value=lambda job: query.doing(job, silent), shown=lambda job: jobrows.state(job, silent)
        ),
        render.Column(title="WORKER", value=lambda job: job.worker, elastic=True),
        render.Column(title="NAME", value=lambda job: job.name, elastic=True),
        render.Column(title="USER", value=lambda job: job.user, wide=True, elastic=True),
        render.Column(title="PROGRESS", value=jobrows.share, shown=words.progress),
        render.Column(title="RATE", value=lambda job: job.progress.rate, shown=words.rate, right=True),
        render.Column(title="LEFT", value=eta, shown=lambda job: words.duration(eta(job)), right=True),
    ]
