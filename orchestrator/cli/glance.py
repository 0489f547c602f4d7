"""The queue and the workers at a glance, as `orch status` prints them."""

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.cli import jobrows, render, words
from orchestrator.core.jobs import Worker
from orchestrator.core.states import JobState, WorkerState
from orchestrator.service import query

if TYPE_CHECKING:
    from rich.text import Text

#: More waiting jobs than this are counted, not shown, on a terminal.
_SHOWN = 15


def show(overview: query.Overview, *, heartbeat: float, to: render.Mode) -> None:
    """Print the overview."""
    if to is render.Mode.TERMINAL:
        _to_people(overview, heartbeat)
    else:
        _to_pipe(overview)


def _to_pipe(overview: query.Overview) -> None:
    for state, count in overview.counts.states.items():
        render.line("state", state, count)
    render.table(_workers(heartbeat=0), overview.workers, to=render.Mode.PIPE, prefix="worker")
    render.line("broker", overview.broker.where, "answers" if overview.broker.answers else "away", overview.broker.why)
    render.line("database", overview.database)
    jobrows.show(overview.active, to=render.Mode.PIPE, prefix="job")


def _to_people(overview: query.Overview, heartbeat: float) -> None:
    from rich.text import Text  # noqa: PLC0415 - terminals only

    console = render.console()
    counts = Text("   ").join(
        render.state(f"{overview.counts.states.get(state, 0)} {state}", of=state)
        for state in JobState
        if state is not JobState.PAUSED or overview.counts.states.get(state)
    )
    broker = overview.broker
    health = "answers" if broker.answers else f"away ({broker.why})"
    console.print(counts)
    console.print()
    if overview.active:
        jobrows.show(overview.active[:_SHOWN], to=render.Mode.TERMINAL)
        if len(overview.active) > _SHOWN:
            console.print(f"and {len(overview.active) - _SHOWN} more: orch list", style="dim")
        console.print()
    if overview.workers:
        render.table(_workers(heartbeat=heartbeat), overview.workers, to=render.Mode.TERMINAL)
        console.print()
    console.print(
        render.pairs(
            [
                ("broker", render.state(f"{broker.where}  {health}", of="ok" if broker.answers else "warn")),
                ("database", render.state(overview.database, of="ok")),
            ]
        )
    )
    for worker in overview.workers:
        if worker.state is WorkerState.UNHEALTHY:
            render.note(f"Worker {worker.id} is unhealthy and takes no more jobs: `orch doctor` says why.")
    if not overview.workers:
        render.note("No worker is running: jobs wait. `orch up -d` starts one here.")
    elif not broker.answers:
        render.note("The broker is away: workers still look for jobs themselves, every few seconds.")


def _workers(*, heartbeat: float) -> tuple[render.Column[Worker], ...]:
    now = datetime.now(UTC)

    def heard(worker: Worker) -> "Text":
        from rich.text import Text  # noqa: PLC0415 - terminals only

        silent = query.silent(worker, now=now, heartbeat=heartbeat)
        return Text(words.ago(worker.beat_at, now), style="yellow" if silent else "")

    return (
        render.Column(title="WORKER", value=lambda worker: worker.id),
        render.Column(
            title="STATE", value=lambda worker: worker.state, shown=lambda worker: render.state(worker.state)
        ),
        render.Column(title="HOST", value=lambda worker: worker.identity.host, wide=True),
        render.Column(title="DEVICES", value=lambda worker: worker.devices, shown=_devices, elastic=True),
        render.Column(title="JOBS", value=lambda worker: worker.jobs, elastic=True),
        render.Column(title="HEARD OF", value=lambda worker: worker.beat_at, shown=heard),
    )


def _devices(worker: Worker) -> str:
    """Return the devices, equal ones counted."""
    counts = Counter(worker.devices)
    return ", ".join(f"{count} x {device}" if count > 1 else device for device, count in counts.items())
