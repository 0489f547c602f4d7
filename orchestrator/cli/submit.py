"""`orch submit`."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import errors
from orchestrator.cli import options, outlook, render, show, specflags, words
from orchestrator.core.states import JobState

if TYPE_CHECKING:  # the real imports stand in the functions: help needs none of them
    from orchestrator.config import Settings
    from orchestrator.core.jobs import Job, Worker
    from orchestrator.core.specs import JobSpec
    from orchestrator.service.context import Context
    from orchestrator.service.jobfile import JobFile, Resolved
    from orchestrator.service.rehearsal import Rehearsal
    from orchestrator.service.submit import Submitted

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch submit --recipe digits

orch submit --data photos.zip --image-size 64 --batch-size 16 --lr 1e-4

orch submit --data photos.zip --network densenet121_imagenet --weights imagenet --train head

orch submit job.toml --lr 3e-4 --wait

orch submit --recipe digits --notify https://example.org/hook --notify-on failed,stalled

orch submit --recipe digits --after k3f9m2qa --not-before 18:00 --priority 2

orch submit job.toml --gpus 2 --device a100 --gpu-memory 40GB --label bigdisk

orch submit job.toml --force

JOB=$(orch submit -q job.yaml)
"""


@app.command(epilog=_EXAMPLES)
@specflags.add
def submit(
    *,
    context: typer.Context,
    jobfile: Annotated[
        str | None, typer.Argument(metavar="JOBFILE", help="TOML or YAML; - reads stdin. Flags override it.")
    ] = None,
    recipe: options.Recipe = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name to find it by.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag; may be given again.")] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="Each point is worth an hour of waiting, among your own jobs.")
    ] = None,
    after: options.After = None,
    not_before: options.NotBefore = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose job it is, if not the login's; users take turns.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="A second submit with this key returns the same job.")
    ] = None,
    device: options.Device = None,
    gpu_memory: options.GpuMemory = None,
    label: options.Label = None,
    notify: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Tell a webhook, or a service by apprise's URL, how the job ends; may be given again. '' tells "
            "nobody. Else whom ORCH_NOTIFY names.",
        ),
    ] = None,
    notify_on: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…", help="What to tell: finished, failed, diverged, stalled, cancelled. Else ORCH_NOTIFY_ON."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Train even if a job has succeeded with the same spec, data and versions."),
    ] = False,
    wait: options.Wait = False,
    follow: options.Follow = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    require_broker: Annotated[
        bool, typer.Option("--require-broker", help="Exit with 4 where the broker is away; the job is queued anyway.")
    ] = False,
    as_json: options.AsJson = False,
    fields: dict[str, Any],
) -> None:
    """Queue a training job.

    When the id is printed the job is in the database. Without any option it is the training of the notebook that orch
    grew from: DenseNet-121 on cats and dogs at 224 pixels, hours on a CPU. If a job has this very result already (same
    spec, data and versions), nothing is queued: its id is printed with the state succeeded, and the exit code is 0.
    Name, tags and notes make no difference; --force or --idempotency-key trains again.
    """
    from orchestrator.core.jobs import NewJob
    from orchestrator.service import bell, provenance
    from orchestrator.service import jobfile as jobfiles
    from orchestrator.service import submit as service

    to = render.mode(as_json=as_json)
    file = jobfiles.JobFile(origin="") if jobfile is None else _read(jobfile)
    settings = options.settings(context, user=user)
    resolved = jobfiles.resolve(flags=fields, file=file, recipe=recipe, settings=settings)
    command = ["orch", "submit", *([jobfile] if jobfile else []), *(["--recipe", recipe] if recipe else [])]
    new = NewJob(
        spec=resolved.spec,
        user=service.user(settings),
        name=file.name if name is None else name,
        tags=tuple(dict.fromkeys([*file.tags, *(tag or [])])),
        priority=priority if priority is not None else file.priority or 0,
        demand=file.demand(device=device, gpu_memory=gpu_memory, labels=label),
        idempotency_key=idempotency_key,
        notify=service.telling(
            settings, file.notify if notify is None else notify, file.notify_on if notify_on is None else [notify_on]
        ),
        not_before=options.moment(not_before),
    )
    if dry_run:
        from orchestrator.service import rehearsal

        rehearsed = rehearsal.rehearse(settings, new, after=after or [], reuse=not force)
        show_dry_run(resolved, rehearsed, list(_advice(resolved.spec, (), command, fields)), to=to)
        return
    with (
        provenance.asked(settings, Path.cwd()) as question,
        bell.prepared(settings) as ring,
        options.opened(context) as opened,
    ):
        new = replace(
            new,
            after=service.dependencies(opened.store, after or []),
            provenance=provenance.known(resolved.origins, question),
        )
        with told_at_any_rate() as stored:
            done = service.submit(
                opened.store, new, ring=ring, require_broker=require_broker, reuse=not force, stored=stored.append
            )
            with service.naming(done.job):
                notes = list(_all_notes(opened, done, command, fields))
            tell(done, notes, quiet=quiet, to=to)
        stay(opened, done.job.id, follow=follow, wait=wait, quiet=quiet, to=to)


def _all_notes(opened: "Context", done: "Submitted", command: list[str], fields: dict[str, Any]) -> Iterator[str]:
    from orchestrator.service import query

    workers = query.living(opened.store)
    yield from notes(done, workers, opened.settings)
    if not done.same:
        yield from _advice(done.job.spec, workers, command, fields, opened=opened)


def stay(opened: "Context", job_id: str, *, follow: bool, wait: bool, quiet: bool, to: render.Mode) -> None:
    """Return when the job has ended, with its code, where that is wanted."""
    if follow:
        from orchestrator.cli import watch

        watch.follow(opened, job_id, to=to)
    elif wait:
        from orchestrator.cli import wait as waiting

        waiting.until_ended(opened, [job_id], to=to, quiet=quiet)


def _read(jobfile: str) -> "JobFile":
    from orchestrator.service import jobfile as jobfiles
    from orchestrator.service import jobtext

    if jobfile == "-":
        if sys.stdin is None:
            raise errors.InvalidSpec("There is no standard input to read a job from.", why="It is closed.")
        return jobfiles.parse(sys.stdin.buffer.read(jobtext.MAX_BYTES + 1), origin="stdin")
    return jobfiles.load(Path(jobfile))


def notes(done: "Submitted", workers: "tuple[Worker, ...]", settings: "Settings") -> Iterator[str]:
    """Yield what people should know of a job that they have queued; `workers` are those that live."""
    from orchestrator.service import advice, query

    if done.same:
        yield f"Job {done.job.id} has this result: the same spec, data and versions. --force runs it again."
        return
    if not done.is_new:
        yield f"The idempotency key is known: this is the job of {words.moment(done.job.submitted_at)}."
    nobody = words.nobody(workers, query.silent_ids(workers, settings))
    if nobody:
        yield f"{nobody.capitalize()}: the job waits. `orch up -d` starts one here."
    yield from words.unfit(query.unfit(done.job, workers))
    yield from advice.absent(done.job.spec)
    if done.broker is not None and (workers or not settings.embedded_broker):
        yield f"The broker is away: {done.broker.why} The job is kept, and workers find it by themselves."


def _advice(
    spec: "JobSpec",
    workers: "tuple[Worker, ...]",
    command: list[str],
    fields: dict[str, Any],
    *,
    opened: "Context | None" = None,
) -> Iterator[str]:
    """Yield what to know before waiting for hours; with a store opened also how long, where earlier jobs tell that."""
    from orchestrator.core import masking
    from orchestrator.service import advice

    said = advice.for_cpu(spec) if advice.on_cpu(workers) else None
    if said is None:
        return
    yield said.warning
    if opened is not None:
        from orchestrator.service import speeds
        from orchestrator.service.experience import Experience

        foreseen = speeds.foresee(spec, Experience(opened.store), speeds.place(workers))
        if foreseen is not None and foreseen.rate.basis.job is not None:
            yield outlook.time(spec, foreseen)
    if said.changes:
        flags = {**fields, **said.changes}
        if "data" in flags:
            flags["data"] = masking.data(flags["data"])
        yield f"Minutes instead of hours: {shlex.join([*command, *specflags.written(flags)])}"


@contextmanager
def told_at_any_rate() -> Iterator[list["Job"]]:
    """Yield a list for a job that is stored, and name it where its id cannot be printed, or Ctrl-C comes before that.

    Whoever gets no id must not think that there is no job.
    """
    stored: list[Job] = []
    try:
        yield stored
    except (OSError, KeyboardInterrupt):
        for job in stored:
            render.note(f"Job {job.id} is stored all the same.")
        raise


def tell(done: "Submitted", notes: list[str], *, quiet: bool, to: render.Mode) -> None:
    """Print what became of a job that was queued."""
    job = done.job
    _print(done, notes, quiet=quiet, to=to)
    sys.stdout.flush()  # the id is out before anything that may take time
    if to is not render.Mode.JSON:
        for note in notes:
            render.note(note)
    if to is render.Mode.TERMINAL and not quiet:
        waits = [f"orch watch {job.id}", f"orch logs -f {job.id}", f"orch cancel {job.id}"]
        render.following([f"orch status {job.id}", f"orch predict {job.id}"] if done.same else waits)


def _print(done: "Submitted", notes: list[str], *, quiet: bool, to: render.Mode) -> None:
    job = done.job
    if quiet:
        render.line(job.id)
    elif to is render.Mode.JSON:
        from orchestrator.service import views

        known = {"is_new": done.is_new, "same": done.same, "ahead": done.ahead}
        render.document(views.SubmittedPayload(job=views.job(job), notes=tuple(notes), **known))
    elif to is render.Mode.PIPE:
        render.line(job.id, job.state, done.ahead)
    else:
        place = f", {_place(done)}" if job.state is JobState.QUEUED else ""
        render.console().print(render.state(f"{job.id}  {job.state}{place}", of=job.state))


def _place(done: "Submitted") -> str:
    from orchestrator.service import query  # with the store, which is open already

    return query.blocked(done.job, done.needs, now=datetime.now(UTC)) or words.place(done.ahead)


def show_dry_run(resolved: "Resolved", rehearsed: "Rehearsal", advice: list[str], *, to: render.Mode) -> None:
    """Print the whole of a job that is not queued, and what would become of it."""
    from orchestrator.service import advice as advising

    notes = [*advising.absent(resolved.spec), *outlook.place(rehearsed), outlook.memory(resolved.spec)]
    notes += [*outlook.speed(resolved.spec, rehearsed.foreseen), *advice]
    if to is render.Mode.JSON:
        from orchestrator.service import outlookviews

        render.document(outlookviews.resolved(resolved, rehearsed, notes))
        return
    show.table(resolved.spec, resolved.origins, to=to)
    for note in notes:
        render.note(note)
