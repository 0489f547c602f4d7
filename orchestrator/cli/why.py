"""`orch why`: why a job waits, and when it begins and ends."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from orchestrator.cli import options, render, words
from orchestrator.core.states import After

if TYPE_CHECKING:
    from orchestrator.service.why import Why

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\norch why @latest\n\norch why k3f9m2qa --json")
def why(context: typer.Context, job: options.Job, as_json: options.AsJson = False) -> None:
    """Say why a job waits, and when it begins and ends.

    It says which jobs are ahead, what the job waits for, and why each worker does not take it. Users take turns: the
    one who trains least is next, then the one who was served longest ago. A user's own jobs go by age, where a point of
    priority counts as an hour. Begin and end are intervals, by what such jobs took before; the latest time allows for
    jobs that others may submit meanwhile. In a pipe each line begins with what it is: job, begins, ends (in seconds
    from now), ahead, needs, worker.
    """
    from orchestrator.service import why as service

    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        answer = service.why(opened.settings, opened.store, job)
    if to is render.Mode.JSON:
        from orchestrator.service import queueviews

        render.document(queueviews.why(answer))
    elif to is render.Mode.PIPE:
        _to_pipe(answer)
    else:
        _to_people(answer)


def _to_pipe(answer: "Why") -> None:
    begins, ends = answer.begins, answer.ends
    render.line("job", answer.job.id, answer.job.state, answer.job.stage, sum(answer.before.values()), answer.sentence)
    render.line("begins", *((begins.low, begins.high) if begins else ("", "")))
    render.line("ends", *((ends.low, ends.high) if ends else ("", "")))
    for user, count in answer.before.items():
        render.line("ahead", user, count)
    for one in answer.needs:
        render.line("needs", one.needs, one.rule, one.ended)
    for verdict in answer.verdicts:
        render.line("worker", verdict.worker.id, verdict.takes, verdict.why)


def _to_people(answer: "Why") -> None:
    console = render.console()
    console.print(render.state(render.addressed(answer.sentence), of=answer.job.state))
    rows = list(_rows(answer))
    if rows:
        console.print()
        console.print(render.pairs(rows))


def _rows(answer: "Why") -> Iterator[tuple[str, str]]:
    from orchestrator.service import why as service

    if answer.before:
        counts = (f"{words.plural(count, 'job')} of {user}" for user, count in answer.before.items())
        yield "ahead", ", ".join(counts)
    for one in answer.needs:
        wanted = "the end" if one.rule is After.ANY else "the success"
        yield "needs", f"{wanted} of {one.needs}, which {service.ended(one)}"
    if answer.begins:
        yield "begins in", words.between(answer.begins.low, answer.begins.high)
    if answer.ends:
        yield "ends in", words.between(answer.ends.low, answer.ends.high)
    for verdict in answer.verdicts:
        yield f"{verdict.worker.id}", render.addressed(verdict.why)
