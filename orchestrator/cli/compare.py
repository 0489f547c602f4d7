"""`orch compare`: jobs beside each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.service.compare import Comparison, Result
    from orchestrator.service.curves import Panel

app = typer.Typer(add_completion=False)

#: Columns that a job takes on a terminal, and the names of the rows before them: jobs that have no room beside the
#: others stand below them.
_COLUMN, _NAMES = 16, 22


@app.command(epilog="Examples:\n\norch compare k3f9m2qa p7x2w0cd\n\norch compare k3f p7x --json | jq .settings")
def compare(context: typer.Context, jobs: options.Jobs, as_json: options.AsJson = False) -> None:
    """Show jobs beside each other: settings that differ, best values, curves.

    In a pipe each line begins with what it is (job, setting, result) and a name, and has a field for each job.
    """
    from orchestrator.service import compare as service
    from orchestrator.service import curves

    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        found = curves.find(opened.store, jobs)
        comparison = service.compare(opened.store, found)
        panels = curves.panels(opened.store, found[: curves.MOST]) if to is render.Mode.TERMINAL else []
    if to is render.Mode.JSON:
        from orchestrator.service import resultviews

        render.document(resultviews.comparison(comparison))
    elif to is render.Mode.PIPE:
        _to_pipe(comparison)
    else:
        _to_people(comparison, panels)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A value of each job: as it is, how it is said, and the one that is best."""

    name: str
    values: Sequence[object]
    shown: Sequence[str]
    best: object = None


def _to_pipe(comparison: "Comparison") -> None:
    for name in ("id", "name", "state"):
        render.line("job", name, *(getattr(one.job, name) for one in comparison.results))
    for name, values in comparison.settings.items():
        render.line("setting", name, *values)
    for row in _results(comparison.results):
        render.line("result", row.name, *row.values)


def _to_people(comparison: "Comparison", panels: "list[Panel]") -> None:
    from orchestrator.cli import plot
    from orchestrator.service import curves

    console = render.console()
    rows = [*_heads(comparison.results), *_settings(comparison), *_results(comparison.results)]
    beside = max(1, (console.width - _NAMES) // _COLUMN)
    for start in range(0, len(comparison.results), beside):
        numbers = range(start, min(start + beside, len(comparison.results)))
        console.print(render.grid(list(_columns(comparison.results, numbers)), rows, width=console.width))
        console.print()
    if not comparison.settings:
        render.talk("Their settings are the same.")
    if not comparison.same_data:
        render.note("They were validated on different data: their figures are not of the same pictures.")
    if len(comparison.results) > curves.MOST:
        render.note(f"The curves are those of the first {curves.MOST} jobs, of {len(comparison.results)}.")
    if panels:
        plot.show(panels, to=render.Mode.TERMINAL)


def _columns(results: "Sequence[Result]", numbers: range) -> Iterator[render.Column[_Row]]:
    yield render.Column(title="", value=lambda row: row.name, shown=lambda row: row.name.replace("_", " "))
    yield from (_column(results[number].job.id, number) for number in numbers)


def _column(title: str, number: int) -> render.Column[_Row]:
    return render.Column(
        title=title, value=lambda row: row.values[number], shown=lambda row: _cell(row, number), elastic=True
    )


def _cell(row: _Row, number: int) -> "Text":
    from rich.text import Text

    best = row.best is not None and row.values[number] == row.best
    return Text(f"{render.clean(row.shown[number])}{' *' if best else ''}", style="green" if best else "")


def _heads(results: "Sequence[Result]") -> Iterator[_Row]:
    if any(one.job.name for one in results):
        names = [one.job.name or "" for one in results]
        yield _Row(name="name", values=names, shown=names)
    states = [str(one.job.state) for one in results]
    yield _Row(name="state", values=states, shown=[f"{words.SYMBOLS[state][0]} {state}" for state in states])


def _settings(comparison: "Comparison") -> Iterator[_Row]:
    for name, values in comparison.settings.items():
        yield _Row(name=name, values=values, shown=[render.raw(value) for value in values])


def _results(results: "Sequence[Result]") -> Iterator[_Row]:
    def row(name: str, say: Callable[[Any], str], best: Callable[[list[float]], float] | None = None) -> _Row:
        values = [getattr(one, name) for one in results]
        known = [value for value in values if value is not None]
        marked = best(known) if best and len(set(known)) > 1 else None
        return _Row(
            name=name, values=values, shown=["" if value is None else say(value) for value in values], best=marked
        )

    yield row("epochs_ended", str)
    yield row("best_accuracy", words.percent, max)
    yield row("best_accuracy_epoch", str)
    yield row("best_loss", "{:.4f}".format, min)
    yield row("best_loss_epoch", str)
    yield row("train_loss", "{:.4f}".format)
    yield row("seconds", words.duration)
    yield row("epoch_seconds", words.duration)
