"""`orch logs`."""

import sys
from collections.abc import Container
from typing import Annotated

import typer

from orchestrator.cli import options, render, words
from orchestrator.core.jobs import Job
from orchestrator.core.states import JobState

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch logs k3f9m2qa\n\norch logs -f @latest\n\norch logs -n 20 @last-failed")
def logs(
    context: typer.Context,
    job: options.Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    number: Annotated[int | None, typer.Option("-n", min=0, metavar="N", help="Only the last so many lines.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the output of a job's attempts.

    At the end it says on stderr where the job stands, or where and why it failed. With -f the exit code is 5 where the
    job failed and 6 where it was cancelled.
    """
    from orchestrator.service import follow as service
    from orchestrator.service import query

    with options.opened(context) as opened:
        store = opened.store
        job_id = store.find(job).id
        with options.detaching(job_id):
            for line in service.lines(store, job_id, last=number, follow=follow, away=options.say_away):
                _print(line, job_id, as_json=as_json)
        found, begun = store.get(job_id), len(store.attempts(job_id))
        silent = query.silent_ids(query.living(store), opened.settings)
    sys.stdout.flush()
    render.talk(_standing(found, begun, silent), label="──")
    if follow:
        service.verdict([found])


def _print(line: str, job_id: str, *, as_json: bool) -> None:
    if as_json:
        from orchestrator.service import views

        render.json_line(views.LogPayload(job_id=job_id, text=line))
    else:
        sys.stdout.write(render.clean(line) + "\n")


def _standing(job: Job, begun: int, silent: Container[str]) -> str:
    """Say where the job stands or died, after so many attempts: those of a restored job are numbered from far ahead."""
    from orchestrator.service import query

    where = f"job {job.id} is {query.doing(job, silent)}"
    if job.state is JobState.QUEUED:
        return f"{where} for {job.stage}" + (
            f", after {begun} attempt{'s' * (begun > 1)}" if begun else ": no attempt yet"
        )
    if job.state is JobState.FAILED:
        why = f": {job.error}" if job.error else ""
        return f"{where}: {job.reason} at stage {job.stage}, attempt {job.attempt}{why}"
    how_far = words.progress(job)
    return f"{where}, {how_far}" if how_far else where
