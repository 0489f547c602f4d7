"""`orch data`: the data sets of this host."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, picture, progress, render, words

if TYPE_CHECKING:
    from orchestrator.service.datasets import Examined, Held

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Set = Annotated[
    str, typer.Argument(metavar="SET", help="Its hash, a prefix of three or more characters, or its source.")
]

#: Characters of a hash that people are shown, duplicates and faults that they are.
_SHORT, _SHOWN = 12, 10


@app.callback()
def data() -> None:
    """Keep the data sets of this host: jobs share them, and fetch what is missing."""


@app.command(epilog="Examples:\n\norch data add digits\n\norch data add https://example.org/pictures.zip")
def add(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As in `orch submit --data`.")],
    sha256: Annotated[str | None, typer.Option(metavar="DIGEST", help="sha256 that the archive must have.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Download a data set and check every picture, before any job needs it."""
    from orchestrator.service import datasets as service

    with options.opened(context) as opened:
        held = service.add(opened.settings, opened.store, source, sha256=sha256, report=progress.Lines())
    _show_one(held, to=render.mode(as_json=as_json))
    _warn_of_shared(held)


@app.command("list", epilog="Examples:\n\norch data list\n\norch data list --json")
def list_(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List the data sets that are here, the last used first."""
    from orchestrator.service import datasets as service

    with options.opened(context) as opened:
        held = service.held(opened.settings, opened.store)
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import dataviews

        render.document(dataviews.HeldsPayload(datasets=tuple(dataviews.HeldPart.model_validate(one) for one in held)))
    elif held or to is render.Mode.PIPE:
        render.table(_columns(), held, to=to)
    else:
        render.talk("There is no data set on this host. `orch data add digits` brings one here.")


@app.command(epilog="Examples:\n\norch data show digits\n\norch data show 6c1ea9 -o sheet.png")
def show(
    context: typer.Context,
    name: _Set,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Draw a contact sheet, .png or .jpg. A file there is replaced."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Read every picture: count each class, and name what both splits have and what cannot be read."""
    from orchestrator.service import datasets as service

    if output is not None:
        picture.check_target(output, picture.SHEETS)
    with options.opened(context) as opened:
        found = service.examine(opened.settings, opened.store, name, report=progress.Lines(), sheet=output)
    _show_whole(found, to=render.mode(as_json=as_json))
    if found.drawn is not None:
        pictures, classes = found.drawn
        render.talk(f"{output}: {words.plural(pictures, 'picture')} of {words.plural(classes, 'class')}.")


@app.command(epilog="Example:\n\norch data verify digits")
def verify(context: typer.Context, name: _Set, as_json: options.AsJson = False) -> None:
    """Read and hash every picture again; exit code 1 where the data set is not what it was."""
    from orchestrator.service import datasets as service

    with options.opened(context) as opened:
        found = service.examine(opened.settings, opened.store, name, report=progress.Lines())
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        _show_whole(found, to=to)
    elif found.sound:
        _show_one(found.held, to=to)
    if not found.sound:
        raise errors.OrchError(
            f"The data set {found.held.hash[:_SHORT]} is not what it was.",
            why=f"{_some(found.faults)}." if found.faults else f"Its content hash is now {found.found}.",
            hint=f"`orch data rm {found.held.hash[:_SHORT]}`, then `orch data add` it again.",
        )


@app.command(epilog="Example:\n\norch data rm 6c1ea9")
def rm(context: typer.Context, name: _Set) -> None:
    """Remove a data set from the cache; jobs that need it later fetch it again.

    A folder that is used where it is stays, and is only forgotten. A data set of a job that has not ended is refused.
    """
    from orchestrator.service import datasets as service

    with options.opened(context) as opened:
        gone = service.remove(opened.settings, opened.store, name)
    stays = "" if gone.unpacked else f", {gone.path} stays as it is"
    freed = f"{words.size(gone.bytes * gone.unpacked + gone.decoded)} are free{stays}"
    render.talk(f"Removed {gone.hash[:_SHORT]}: {freed}.")


def _columns() -> "list[render.Column[Held]]":
    column, now = render.Column["Held"], datetime.now(UTC)
    return [
        column(title="SET", value=lambda one: one.hash, shown=lambda one: one.hash[:_SHORT]),
        column(title="SOURCE", value=lambda one: one.sources, elastic=True),
        column(title="CLASSES", value=lambda one: len(one.classes), right=True, wide=True),
        column(title="TRAIN", value=lambda one: one.counts["train"], right=True),
        column(title="VAL", value=lambda one: one.counts["val"], right=True),
        column(title="SIZE", value=lambda one: one.bytes, shown=lambda one: words.size(one.bytes), right=True),
        column(title="PIXELS", value=lambda one: one.decoded, shown=_pixels, right=True, wide=True),
        column(title="STATE", value=_state),
        column(title="JOBS", value=lambda one: len(one.jobs), shown=_jobs, right=True),
        column(title="LIVE", value=lambda one: one.live, wide=True),
        column(title="LAST USE", value=lambda one: one.used_at, shown=lambda one: words.ago(one.used_at, now)),
        column(title="PATH", value=lambda one: one.path, wide=True, elastic=True),
    ]


def _pixels(held: "Held") -> str:
    return words.size(held.decoded) if held.decoded else ""


def _jobs(held: "Held") -> str:
    from orchestrator.service import datasets as service

    return f"{len(held.jobs)}{' or more' if len(held.jobs) == service.JOBS_COUNTED else ''}"


def _state(held: "Held") -> str:
    return "changed" if not held.whole else "unpacked" if held.unpacked else "folder"


def _show_one(held: "Held", *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import dataviews

        render.document(dataviews.HeldPayload(dataset=dataviews.HeldPart.model_validate(held)))
    else:
        render.table(_columns(), [held], to=to)


def _show_whole(found: "Examined", *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import dataviews

        render.document(dataviews.ExaminedPayload.model_validate(found))
        return
    pipe = to is render.Mode.PIPE
    render.table(_columns(), [found.held], to=to, prefix="set")
    if not pipe:
        render.console().print()
    render.table(_classes(found), range(len(found.held.classes)), to=to, prefix="class")
    for fault in found.faults if pipe else found.faults[:_SHOWN]:
        if pipe:
            render.line("fault", fault)
        else:
            render.talk(fault, label="unreadable:", style="bold red")
    for shared in found.duplicates if pipe else found.duplicates[:_SHOWN]:
        if pipe:
            render.line("duplicate", shared.train, shared.val)
        else:
            render.talk(f"{_some(shared.train)} = {_some(shared.val)}", label="in both splits:", style="bold yellow")
    if not pipe:
        _tell_of_more(len(found.faults), "fault")
        _tell_of_more(len(found.duplicates), "duplicate")
    _warn_of_shared(found.held)


def _tell_of_more(count: int, what: str) -> None:
    if count > _SHOWN:
        render.talk(f"and {words.plural(count - _SHOWN, f'more {what}')}: a pipe has all, `--json` too")


def _classes(found: "Examined") -> list[render.Column[int]]:
    return [
        render.Column(title="CLASS", value=lambda number: found.held.classes[number]),
        render.Column(title="TRAIN", value=lambda number: found.by_class["train"][number], right=True),
        render.Column(title="VAL", value=lambda number: found.by_class["val"][number], right=True),
    ]


def _warn_of_shared(held: "Held") -> None:
    if held.shared:
        render.note(f"{held.shared} of {held.counts['val']} validation pictures are in the train split too.")


def _some(names: "tuple[str, ...]") -> str:
    return "; ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - a line
