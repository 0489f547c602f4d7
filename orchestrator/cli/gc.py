"""`orch gc`."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from orchestrator.service.gc import Item

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch gc --dry-run\n\norch gc\n\norch gc --dry-run --json")
def gc(
    context: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and how much; remove nothing.")
    ] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also remove folders of jobs that the database has never heard of.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove what nobody needs any more on this host, and say how much room that makes.

    That is what deleted jobs and ended attempts have left, downloads that no job goes on with, weights out of bundles
    that no job begins with, decoded pixels that no training reads again, code that --compile made and no training has
    begun with for a month, and, where the data sets are larger than ORCH_DATA_MAX_BYTES, those that were used longest
    ago. What a process uses stays, and what a job refers to that has not ended; workers may run meanwhile. Nodes remove
    the remains of jobs, attempts and downloads by themselves, once a minute; the rest is removed by this command alone.
    In a pipe: kind, bytes, removed, job, path, why.
    """
    from orchestrator.service import gc as service

    to = render.mode(as_json=as_json)
    items: list[Item] = []
    with options.opened(context) as opened:
        try:
            items.extend(service.collect(opened.settings, dry_run=dry_run, orphans=orphans))
        except BaseException:
            if items:  # what fails half-way has removed them all the same
                _show(items, dry_run=dry_run, to=to)
            raise
    _show(items, dry_run=dry_run, to=to)


def _show(items: "list[Item]", *, dry_run: bool, to: render.Mode) -> None:
    room = sum(item.bytes for item in items if (item.removable if dry_run else item.removed))
    if to is render.Mode.JSON:
        from orchestrator.service import careviews

        parts = tuple(careviews.GarbagePart.model_validate(item) for item in items)
        render.document(careviews.GarbagePayload(dry_run=dry_run, bytes=room, items=parts))
        return
    if items or to is render.Mode.PIPE:
        render.table(_columns(), items, to=to)
    said = (
        f"{words.size(room)} {'would be free' if dry_run else 'are free'}." if items else "There is nothing to remove."
    )
    render.talk(said)


def _columns() -> "list[render.Column[Item]]":
    return [
        render.Column(title="WHAT", value=lambda item: item.kind),
        render.Column(
            title="SIZE", value=lambda item: item.bytes, shown=lambda item: words.size(item.bytes), right=True
        ),
        render.Column(title="GONE", value=lambda item: item.removed, wide=True),
        render.Column(title="JOB", value=lambda item: item.job, wide=True),
        render.Column(title="PATH", value=lambda item: item.path, fold=True),
        render.Column(title="WHY", value=lambda item: item.why, fold=True),
    ]
