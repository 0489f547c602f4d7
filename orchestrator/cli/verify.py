"""`orch verify-resume`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, progress, render

if TYPE_CHECKING:
    from orchestrator.service.verify import Verdict

app = typer.Typer(add_completion=False)

#: Names of differing parts of a checkpoint that are shown.
_SHOWN = 5


@app.command(
    name="verify-resume",
    epilog="Examples:\n\norch verify-resume k3f9m2qa\n\norch verify-resume @latest --from-start --steps 20\n\n"
    "orch verify-resume k3f9m2qa --json",
)
def verify_resume(
    context: typer.Context,
    job: options.Job,
    *,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="At most so many; else up to a checkpoint.")
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="From the first step on, not from a checkpoint.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a part of a job once more, and say whether the result is the same to the last bit.

    It takes the shortest part between two kept checkpoints, trains it, and compares the losses of all steps, and at the
    end weights, optimizer and random generators. A process of this host does it beside the workers; the job and its
    files stay as they are. Exit code 0: equal, 1: different. In a pipe the lines are verdict, steps, losses,
    checkpoint, and elsewhere for each thing that differs here. Equal bits are promised for one type of CPU, one thread
    count and the same versions.
    """
    from orchestrator.service import verify as service

    to = render.mode(as_json=as_json)
    told = progress.Lines()
    with options.opened(context) as opened:
        for step in service.verify(opened.settings, opened.store, job, steps=steps, from_start=from_start):
            if isinstance(step, service.Verdict):
                _show(step, to=to)
            else:
                told(step.done, step.total, step.unit)


def _show(verdict: "Verdict", *, to: render.Mode) -> None:
    if to is render.Mode.JSON:
        from orchestrator.service import provenanceviews

        render.document(provenanceviews.VerdictPayload.model_validate(verdict))
    elif to is render.Mode.PIPE:
        for fields in _facts(verdict):
            render.line(*fields)
    else:
        said = "equal to the last bit" if verdict.equal else "different"
        console = render.console()
        console.print(render.state(said, of="ok" if verdict.equal else "fail"))
        console.print(render.pairs((f"{name}", ", ".join(map(render.raw, rest))) for name, *rest in _facts(verdict)))
    if not verdict.equal:
        raise errors.OrchError(
            f"Job {verdict.job} did not end in the same bits again.",
            why=f"What was different: {'; '.join(verdict.elsewhere)}." if verdict.elsewhere else None,
            hint=f"`orch show {verdict.job} --env` says what it trained with.",
        )


def _facts(verdict: "Verdict") -> Iterator[tuple[object, ...]]:
    yield "verdict", "bit-equal" if verdict.equal else "different"
    yield "steps", verdict.first_step + 1, verdict.last_step
    loss = verdict.loss
    if loss is None:
        yield "losses", "equal", verdict.losses
    else:
        yield "losses", "different", verdict.losses, loss.step, loss.recorded, loss.replayed
    if verdict.differing is None:
        yield "checkpoint", "not compared"
    elif verdict.differing:
        more = len(verdict.differing) - _SHOWN
        yield "checkpoint", "different", *verdict.differing[:_SHOWN], *([f"and {more} more"] if more > 0 else [])
    else:
        yield "checkpoint", "equal"
    for one in verdict.elsewhere:
        yield "elsewhere", one
