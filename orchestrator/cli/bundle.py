"""`orch bundle` and `orch reproduce`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, progress, render, words

if TYPE_CHECKING:  # the real imports stand in the functions: help needs none of them
    from orchestrator.core.reproduction import Result
    from orchestrator.service.bundle import Manifest
    from orchestrator.service.context import Context
    from orchestrator.service.reproduce import Plan, Verdict

app = typer.Typer(add_completion=False)

#: What is said of an outcome, and the state whose symbol it has.
_SAID = {
    "identical": ("identical to the last bit", "ok"),
    "within-noise": ("equal within noise", "ok"),
    "different": ("different", "fail"),
    "not-run": ("not run", "fail"),
}


@app.command(
    epilog="Examples:\n\norch bundle k3f9m2qa\n\norch bundle @latest --with-weights -o cats.zip\n\n"
    "orch bundle k3f9m2qa --force --json"
)
def bundle(
    context: typer.Context,
    job: options.Job,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File or folder; else JOB.zip here.")
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Also the weights, and those that it began with.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a job into one file, to train it again elsewhere and compare the results.

    The file has its spec with the origin of each value, the git commit and what was not committed (secrets masked),
    versions, device, threads and seed of its attempts, the digest of its data and where that came from, the metrics of
    every epoch, the final evaluation, and the sha256 of its weights. The pictures are not in it. The job must have
    succeeded, and its checkpoints must be on this host. `orch reproduce` takes the file.
    """
    from orchestrator.service import bundle as service

    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        made = service.bundle(opened.settings, opened.store, job, output=output, with_weights=with_weights, force=force)
    if to is render.Mode.JSON:
        from orchestrator.service import bundleviews

        render.document(bundleviews.bundle(made))
    elif to is render.Mode.PIPE:
        render.line(made.path)
    else:
        render.console().print(render.clean(str(made.path)), soft_wrap=True)
    accuracy = words.percent(made.manifest.evaluation.accuracy)
    render.talk(f"{words.size(made.bytes)}: job {made.manifest.job}, {accuracy}, data {made.manifest.data.source}.")
    if made.manifest.data.masked:
        render.note("The secret in the URL of its data is not in it: `orch reproduce` takes it with --data.")


@app.command(
    epilog="Examples:\n\norch reproduce k3f9m2qa.zip\n\norch reproduce cats.zip --data /srv/cats.zip --timeout 7200\n\n"
    "JOB=$(orch reproduce cats.zip --detach)\n\norch reproduce cats.zip --verdict k3f9m2qa --json"
)
def reproduce(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `orch bundle` has written.")],
    *,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SOURCE", help="Where the same data is here; its digest is compared."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Queue it, print the id, and do not wait.")] = False,
    verdict: Annotated[
        str | None,
        typer.Option(
            "--verdict",
            metavar="JOB",
            help="Queue nothing: judge the job that an earlier call has queued.",
            autocompletion=options.complete_job,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", metavar="SHARE", min=0, max=1, help="By how much equal accuracies may differ."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Give up waiting after so long; the job goes on.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the job of a bundle here, and say whether the result is the same.

    Where the URL of its data held a secret, which no bundle has, --data gives it. What differs here (versions,
    processor, device, threads) is said before it begins; a job whose data has another digest is cancelled. The
    verdict: identical (the weights, to the last bit), within-noise (accuracies differ by at most two standard errors
    or a percentage point, whichever is more, or by --tolerance), different, or not-run. Exit codes: 0 identical or
    within noise, 1 different or other data, 5 the job failed, 6 it was cancelled, 7 the time was not enough. Ctrl-C
    leaves the job alone, and --verdict judges it later. In a pipe each line is a name and its values.
    """
    from orchestrator.service import bundle as bundles

    if verdict is not None and (detach or data is not None or timeout is not None):
        raise errors.UsageError("--verdict queues nothing.", hint="orch reproduce BUNDLE --verdict JOB")
    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        if verdict is not None:
            _judge(opened, bundles.read(file), opened.store.find(verdict).id, tolerance=tolerance, to=to)
            return
        wanted, job_id = _begin(opened, file, data=data, detach=detach, to=to)
        if detach:
            return
        render.talk(f"Job {job_id} is queued.")
        _wait(opened, wanted, job_id, timeout=timeout)
        _judge(opened, wanted.manifest, job_id, tolerance=tolerance, to=to)


def _begin(opened: "Context", file: Path, *, data: str | None, detach: bool, to: render.Mode) -> tuple["Plan", str]:
    """Say what differs here, queue the job, and return its id, which is printed with `detach`, with its plan."""
    from orchestrator.cli import submit
    from orchestrator.service import reproduce as service

    wanted = service.plan(opened.settings, opened.store, file, data=data)
    _note(wanted)
    with submit.told_at_any_rate() as stored:
        job_id = service.begin(opened.settings, opened.store, wanted, stored=stored.append).id
        if detach:
            _print_begun(wanted, job_id, to=to)
            sys.stdout.flush()
    return wanted, job_id


def _judge(opened: "Context", manifest: "Manifest", job_id: str, *, tolerance: float | None, to: render.Mode) -> None:
    """Say what a job that has ended came to, and end with the code of that."""
    from orchestrator.service import reproduce as service

    said = service.verdict(opened.settings, opened.store, manifest, job_id, tolerance=tolerance)
    _show(said, to=to)
    _end(opened, said)


def _note(wanted: "Plan") -> None:
    for remark in wanted.remarks:
        render.note(remark)
    for one in wanted.differences:
        render.note(f"Different here: {one}.")


def _print_begun(wanted: "Plan", job_id: str, *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import bundleviews

        render.document(bundleviews.begun(wanted, job_id))
    else:
        render.line(job_id)
    render.following([f"orch reproduce BUNDLE --verdict {job_id}"] if to is render.Mode.TERMINAL else [])


def _wait(opened: "Context", wanted: "Plan", job_id: str, *, timeout: float | None) -> None:
    from orchestrator.core.states import Stage
    from orchestrator.service import reproduce as service

    told = progress.Lines()
    with options.detaching(job_id):
        followed = service.until_ended(
            opened.settings, opened.store, wanted, job_id, timeout=timeout, away=options.say_away
        )
        for job in followed:
            if job.stage is Stage.TRAIN:
                told(job.progress.done, job.progress.total, job.progress.unit)


def _show(said: "Verdict", *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import bundleviews

        render.document(bundleviews.verdict(said))
    elif to is render.Mode.PIPE:
        for fields in _facts(said):
            render.line(*fields)
    else:
        text, symbol = _SAID[said.outcome]
        console = render.console()
        console.print(render.state(text, of=symbol))
        console.print(render.pairs((str(name), ", ".join(map(render.raw, rest))) for name, *rest in _facts(said)))


def _facts(said: "Verdict") -> Iterator[tuple[object, ...]]:
    yield "verdict", said.outcome
    yield "bundle", said.bundle, *_figures(said.first)
    yield "job", said.job, *(_figures(said.again) if said.again else ())
    if said.why is not None:
        yield "why", said.why
    for role in said.first.weights if said.again else ():
        equal = said.again is not None and said.first.weights[role] == said.again.weights.get(role)
        yield f"{role} weights", "equal" if equal else "different"
    if said.tolerance is not None:
        yield "tolerance", round(said.tolerance, 4)
    if said.again is not None:
        yield "losses", "equal" if said.epoch is None else f"different from epoch {said.epoch} on"
    for one in said.differences:
        yield "elsewhere", one


def _figures(result: "Result") -> tuple[str, str]:
    return f"accuracy={result.accuracy:.4f}", f"loss={result.loss:.4f}"


def _end(opened: "Context", said: "Verdict") -> None:
    """Raise what a verdict that is none of the good ones is worth."""
    from orchestrator.core import reproduction
    from orchestrator.service import follow

    if said.outcome in reproduction.GOOD:
        return
    why = f"What was different: {'; '.join(said.differences)}." if said.differences else None
    if said.outcome is reproduction.Outcome.DIFFERENT:
        raise errors.OrchError(f"Job {said.job} has another result than job {said.bundle} of the bundle.", why=why)
    if not said.other_data:
        follow.verdict([opened.store.get(said.job)])
    raise errors.OrchError(
        f"Job {said.job} did not train on the data of job {said.bundle}.",
        why=said.why,
        hint="--data SOURCE names where the same data is here.",
    )
