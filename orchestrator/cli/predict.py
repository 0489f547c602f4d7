"""`orch predict`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.cli import options, render, words

if TYPE_CHECKING:
    from orchestrator.service.predict import Prediction

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\norch predict k3f9m2qa cat.jpg\n\norch predict @latest photos/ --top 3\n\n"
    "find . -newer list.txt -name '*.jpg' | orch predict @latest - --json"
)
def predict(
    context: typer.Context,
    job: options.Job,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Pictures, or folders of them; -: their names on stdin, one a line."),
    ],
    top: Annotated[
        int, typer.Option("--top", "--top-k", min=1, metavar="N", help="How many classes for each picture.")
    ] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Classify pictures with the best checkpoint of a job.

    Its checkpoint must be on this host, and PyTorch installed; no worker is needed. In a pipe a line is picture, class
    and probability. The exit code is 1 where a picture could not be read.
    """
    from orchestrator.service import predict as service

    to = render.mode(as_json=as_json)
    unread = 0
    with options.opened(context) as opened:
        for prediction in service.predict(opened.settings, opened.store, job, list(_named(images)), top=top):
            show(prediction, to=to)
            unread += prediction.error is not None
    if unread:
        raise errors.OrchError(f"{words.plural(unread, 'picture')} could not be read.")


def _named(images: list[Path]) -> Iterator[Path]:
    """Yield the pictures, those that stdin names in the place of each `-`."""
    for image in images:
        if image == Path("-"):
            named = os.fsdecode(sys.stdin.buffer.read()) if sys.stdin else ""
            yield from (Path(line) for line in named.split("\n") if line)
        else:
            yield image


def show(prediction: "Prediction", *, to: render.Mode) -> None:
    """Print what the network makes of one picture."""
    if to is render.Mode.JSON:
        from orchestrator.service import trainedviews

        render.json_line(trainedviews.PredictionPayload.model_validate(prediction))
        return
    if prediction.error is not None:
        render.talk(f"{prediction.image}: {prediction.error}", label="error:", style="bold red")
    for guess in prediction.guesses:
        if to is render.Mode.PIPE:
            render.line(prediction.image, guess.label, guess.probability)
        else:
            said = f"{guess.label:<12} {words.percent(guess.probability):>7}  {_short(prediction.image)}"
            render.console().print(render.clean(said), soft_wrap=True)
    sys.stdout.flush()


def _short(image: str) -> str:
    path = Path(image)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else image
