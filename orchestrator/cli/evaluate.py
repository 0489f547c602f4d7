"""`orch evaluate`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator import errors
from orchestrator.cli import options, progress, render

if TYPE_CHECKING:
    from orchestrator.service.evaluate import Measured

app = typer.Typer(add_completion=False)


class Split(StrEnum):
    """Which pictures."""

    VALIDATION = "validation"
    TRAIN = "train"


_EXAMPLES = """
Examples:

orch evaluate k3f9m2qa --data photos/

orch evaluate @latest --data https://example.org/others.zip --json

orch evaluate @latest --split train
"""


@app.command(epilog=_EXAMPLES)
def evaluate(
    context: typer.Context,
    job: options.Job,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="A data set as in `orch submit --data`; else the one that the job trained on."
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--data-sha256", metavar="DIGEST", help="sha256 that the archive must have.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which pictures of the data set.")] = Split.VALIDATION,
    as_json: options.AsJson = False,
) -> None:
    """Measure the best checkpoint of a job on other data with the same classes.

    The data set is fetched into the cache of this host if it is not there yet. Classes are matched by name. Nothing is
    stored: the job keeps its own evaluation. No worker is needed.
    """
    from orchestrator.service import evaluate as service
    from orchestrator.service.doing import Doing

    if sha256 is not None and data is None:
        raise errors.UsageError("--data-sha256 is the digest of --data, which is not given.", hint="Add --data SOURCE.")
    chosen: Literal["train", "val"] = "val" if split is Split.VALIDATION else "train"
    told = progress.Lines()
    with options.opened(context) as opened:
        found = service.evaluate(opened.settings, opened.store, job, data=data, sha256=sha256, split=chosen)
        for step in found:
            if isinstance(step, Doing):
                told(step.done, step.total, step.unit)
            else:
                show(step, to=render.mode(as_json=as_json))


def show(measured: "Measured", *, to: render.Mode) -> None:
    """Print what the network does on the data."""
    if to is render.Mode.JSON:
        from orchestrator.service import trainedviews

        render.document(trainedviews.MeasuredPayload.model_validate(measured))
    elif to is render.Mode.PIPE:
        from orchestrator.cli import jobpipe

        jobpipe.evaluation(measured.evaluation)
    else:
        from orchestrator.cli import jobpage

        jobpage.evaluation(measured.evaluation, f"{measured.split} pictures of {measured.data}")
