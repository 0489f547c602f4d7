"""`orch export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import options, render, words

app = typer.Typer(add_completion=False)


class Format(StrEnum):
    """What kind of file."""

    SAFETENSORS = "safetensors"  #: weights alone
    TORCH_EXPORT = "torch-export"  #: the network as a program of torch.export
    ONNX = "onnx"  #: for other runtimes; needs the extra `onnx`


_EXAMPLES = """
Examples:

orch export k3f9m2qa

orch export @latest --format onnx -o cats.onnx
"""


@app.command(epilog=_EXAMPLES)
def export(
    context: typer.Context,
    job: options.Job,
    *,
    form: Annotated[
        Format, typer.Option("--format", help="Weights alone, a program of torch.export, or ONNX.")
    ] = Format.SAFETENSORS,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="File or folder; else the working folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the best checkpoint of a job for other programs, with its preprocessing and a model card.

    Preprocessing and model card are files beside it. The file's logits are compared with the network's before it gets
    its name: on pictures of the validation split where this host has them, else on generated ones. The network takes
    any number of pictures at once.
    """
    from orchestrator.service import export as service

    with options.opened(context) as opened:
        made = service.export(opened.settings, opened.store, job, form=form.value, output=output, force=force)
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        from orchestrator.service import trainedviews

        render.document(trainedviews.ExportPayload.model_validate(made))
        return
    if to is render.Mode.PIPE:
        render.line(made.path)
    else:
        for path in (made.path, made.preprocessing, made.card):
            render.console().print(render.clean(str(path)), soft_wrap=True)
    compared = (
        f"{words.plural(made.images, f'{made.pictures} picture')}: logits differ by {made.difference:.2g} at most"
    )
    why = "" if made.pictures == "validation" else " (the data set is not on this host)"
    render.talk(f"{words.size(made.bytes)}, sha256 {made.sha256}, compared on {compared}{why}.")
