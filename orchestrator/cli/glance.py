"""The queue and the workers at a glance, as `orch status` prints them."""

from collections import Counter
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from orchestrator import config
from orchestrator.cli import jobrows, render, words
from orchestrator.core.jobs import Worker
from orchestrator.core.states import JobState, WorkerState
from orchestrator.service import query

if TYPE_CHECKING:
    from rich.text import Text

#: More waiting jobs than this are counted, not shown, on a terminal.
_SHOWN = 15


def show(overview: query.Overview, settings: config.Settings, *, to: render.Mode) -> None:
    """Print the overview."""
    silent = query.silent_ids(overview.workers, settings)
    if to is render.Mode.TERMINAL:
        _to_people(overview, settings, silent)
    else:
        _to_pipe(overview, settings, silent)


def _to_pipe(overview: query.Overview, settings: config.Settings, silent: Container[str]) -> None:
    for state, count in overview.counts.states.items():
        render.line("state", state, count)
    render.table(worker_columns(settings), overview.workers, to=render.Mode.PIPE, prefix="worker")
    render.line("broker", overview.broker.where, "answers" if overview.broker.answers else "away", overview.broker.why)
    render.line("database", overview.database)
    jobrows.show(overview.active, silent=silent, to=render.Mode.PIPE, prefix="job")


def _to_people(overview: query.Overview, settings: config.Settings, silent: Container[str]) -> None:
    from rich.text import Text

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
        jobrows.show(overview.active[:_SHOWN], silent=silent, to=render.Mode.TERMINAL)
        more = sum(overview.counts.states[state] for state in query.ACTIVE) - _SHOWN
        if more > 0:
            console.print(render.addressed(f"and {more} more: `orch list`"), style="dim")
        console.print()
    if overview.workers:
        render.table(worker_columns(settings), overview.workers, to=render.Mode.TERMINAL)
        console.print()
    console.print(
        render.pairs(
            [
                ("broker", render.state(f"{broker.where}  {health}", of="ok" if broker.answers else "warn")),
                ("database", render.state(overview.database, of="ok")),
            ]
        )
    )
    for note in _notes(overview, silent):
        render.note(note)


def _notes(overview: query.Overview, silent: Container[str]) -> Iterator[str]:
    """Yield what people should know of the workers and the broker."""
    for worker in overview.workers:
        if worker.state is WorkerState.UNHEALTHY and worker.id not in silent:
            yield f"Worker {worker.id} is unhealthy and takes no more jobs: `orch doctor` says why."
    nobody = words.nobody(overview.workers, silent)
    stranded = [job for job in overview.active if query.stranded(job, overview.workers, silent)]
    if nobody:
        yield f"{nobody.capitalize()}: jobs wait. `orch up -d` starts one here."
    elif stranded:
        many = words.plural(len(stranded), "job")
        yield f"No running worker has the checkpoints of {many}: `orch status {stranded[0].id}` says what to do."
    elif unfit := [job for job in overview.active if query.unfit(job, overview.workers)]:
        yield f"No running worker can ever run {words.plural(len(unfit), 'job')}: `orch why {unfit[0].id}` says why."
    elif not overview.broker.answers:
        yield "The broker is away: workers still look for jobs themselves, every few seconds."


def worker_columns(settings: config.Settings) -> tuple[render.Column[Worker], ...]:
    """Return the columns of a worker."""

    def heard(worker: Worker) -> "Text":
        from rich.text import Text

        return Text(words.since(worker.silence), style="yellow" if query.silent(worker, settings) else "")

    return (
        render.Column(title="WORKER", value=lambda worker: worker.id),
        render.Column(
            title="STATE",
            value=lambda worker: query.standing(worker, settings),
            shown=lambda worker: render.state(query.standing(worker, settings)),
        ),
        render.Column(title="HOST", value=lambda worker: worker.identity.host, wide=True),
        render.Column(title="DEVICES", value=lambda worker: worker.devices, shown=_devices, elastic=True),
        render.Column(title="JOBS", value=lambda worker: worker.jobs, elastic=True),
        render.Column(title="HEARD OF", value=lambda worker: worker.beat_at, shown=heard),
        render.Column(title="LABELS", value=lambda worker: worker.labels, wide=True, elastic=True),
    )


def _devices(worker: Worker) -> str:
    """Return the devices, equal ones counted."""
    counts = Counter(worker.devices)
    return ", ".join(f"{count} x {device}" if count > 1 else device for device, count in counts.items())
