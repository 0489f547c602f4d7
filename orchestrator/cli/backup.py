"""`orch backup` and `orch restore`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, progress, render, words

if TYPE_CHECKING:  # the real imports stand in the functions: help needs none of them
    from orchestrator.service.backup import Manifest, Sizes, Written
    from orchestrator.service.doing import Doing
    from orchestrator.service.restore import Inside, Restored

app = typer.Typer(add_completion=False)

#: Checkpoints that are left out and named.
_NAMED = 5


@app.command(
    epilog="Examples:\n\norch backup /backup/orch.zip\n\norch backup --without-artifacts rows.zip\n\n"
    "orch backup --force last.zip --json"
)
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write: a zip archive of orch's own.")],
    *,
    without_artifacts: Annotated[
        bool, typer.Option("--without-artifacts", help="The database alone, without checkpoints and logs.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the database and the checkpoints of this installation into one file, while workers run.

    The rows are of one moment, in a form that SQLite and PostgreSQL both take. With them go the checkpoints they list
    that lie in this host's artifact folder, each compared with its sha256, and the logs beside them. Data sets are not
    in it: jobs fetch them. The file gets its name when all of it is on the disk. It is as confidential as the database:
    it holds specs, logs, git diffs, and the URLs that jobs notify. The exit code is 1 where a checkpoint is damaged;
    all else is in the file then. In a pipe: path, bytes, jobs, files, their bytes, checkpoints left out.
    """
    from orchestrator.service import backup as service

    to = render.mode(as_json=as_json)
    settings = options.settings(context)
    made = service.backup(settings, file, hear=_hear(), with_artifacts=not without_artifacts, force=force)
    manifest = made.manifest
    _show_written(made, to=to)
    _note_left_out(manifest)
    if manifest.elsewhere and not without_artifacts:
        render.note(f"{words.plural(manifest.elsewhere, 'checkpoint')} in other artifact folders: not in it.")
    if damaged := [one for one in manifest.left_out if one.damaged]:
        raise errors.OrchError(
            f"{words.plural(len(damaged), 'checkpoint')} on the disk cannot be used: the backup is without.",
            why=f"{damaged[0].path}: {damaged[0].why}",
            hint="`orch doctor --audit` names the jobs.",
        )


@app.command(
    epilog="Examples:\n\norch restore --dry-run /backup/orch-2026-11-29.zip\n\n"
    "orch --home /srv/orch restore /backup/orch-2026-11-29.zip\n\n"
    "ORCH_DATABASE_URL=postgresql://… orch restore /backup/orch-2026-11-29.zip"
)
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `orch backup` has written.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and this place, and say what is in it; write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Put a backup into an installation that has no jobs: another home, or an empty database.

    All of the file is checked first. Then come its files, then all rows at once; if it is killed meanwhile, run it
    again. An older schema is upgraded, a newer one is refused with code 4, an installation with jobs or a running node
    with code 1. Jobs that ran are queued again and go on from their checkpoints; a worker of the old installation that
    still runs writes nothing into the new one. In a pipe each line is a name and its values.
    """
    from orchestrator.service import restore as service

    to = render.mode(as_json=as_json)
    settings = options.settings(context)
    hear = _hear()
    if dry_run:
        found = service.look(settings, file, hear=hear)
        _show(found, None, to=to)
        render.talk("The file is whole, and can be restored here: nothing was written.")
        return
    done = service.restore(settings, file, hear=hear)
    _show(done.inside, done, to=to)
    _note_left_out(done.inside.manifest)
    if done.forgotten:
        render.note(f"Jobs without some of their checkpoints: {', '.join(done.forgotten[:_NAMED])}.")
    if done.artifacts is None:
        render.note("Checkpoints were not in it: jobs go on where their artifact folder is (ORCH_ARTIFACTS).")
    if to is render.Mode.TERMINAL:
        render.following(["orch doctor --audit", "orch up -d", "orch list"])


def _hear() -> "Callable[[Sizes | Doing], None]":
    """Return what says how much there is, and how far it is."""
    from orchestrator.service.doing import Doing

    told = progress.Lines()

    def hear(news: "Sizes | Doing") -> None:
        if isinstance(news, Doing):
            told(news.done, news.total, news.unit)
            return
        render.talk(
            f"Database {words.size(news.database)}, {words.plural(news.files, 'checkpoint')} of "
            f"{words.size(news.file_bytes)}; {words.size(news.free)} free."
        )

    return hear


def _show_written(made: "Written", *, to: render.Mode) -> None:
    manifest = made.manifest
    if to is render.Mode.JSON:
        from orchestrator.service import backupviews

        render.document(backupviews.BackupPayload(backup=backupviews.inside(made.path, made.bytes, manifest)))
    elif to is render.Mode.PIPE:
        left_out = len(manifest.left_out)
        render.line(made.path, made.bytes, _jobs(manifest), manifest.files, manifest.file_bytes, left_out)
    else:
        render.console().print(render.clean(str(made.path)), soft_wrap=True)
    counted = f"{words.plural(_jobs(manifest), 'job')}, {words.plural(manifest.files, 'file')}"
    render.talk(f"{words.size(made.bytes)}: {counted}.")


def _jobs(manifest: "Manifest") -> int:
    return sum(manifest.states.values())


def _note_left_out(manifest: "Manifest") -> None:
    if manifest.left_out:
        named = "; ".join(f"{one.path}: {one.why}" for one in manifest.left_out[:_NAMED])
        more = len(manifest.left_out) - _NAMED
        render.note(f"Not in it: {named}{f'; and {more} more' if more > 0 else ''}.")


def _show(found: "Inside", done: "Restored | None", *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import backupviews

        render.document(backupviews.looked(found) if done is None else backupviews.restored(done))
    elif to is render.Mode.PIPE:
        for fields in _facts(found, done):
            render.line(*fields)
    else:
        shown = ((str(name), ", ".join(map(render.raw, values))) for name, *values in _facts(found, done, people=True))
        render.console().print(render.pairs(shown))


def _facts(found: "Inside", done: "Restored | None", *, people: bool = False) -> Iterator[tuple[object, ...]]:
    def size(count: int) -> object:
        return words.size(count) if people else count

    manifest = found.manifest
    yield "made", words.moment(manifest.made_at) if people else manifest.made_at
    yield "orch", manifest.orch
    yield "schema", manifest.revision
    yield "from", manifest.database
    yield "size", size(found.bytes)
    states = done.states if done else manifest.states
    yield "jobs", *(f"{state}={count}" for state, count in sorted(states.items()))
    yield "rows", manifest.rows
    yield "files", manifest.files, size(manifest.file_bytes)
    if done is not None:
        yield "database", done.database
        yield "artifacts", done.artifacts, done.root
        if done.requeued:
            yield "requeued", *done.requeued
