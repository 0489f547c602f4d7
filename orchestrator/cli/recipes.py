"""`orch recipes`."""

import sys
from typing import Annotated

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch recipes

orch recipes paper-cifar > mine.toml

orch submit --recipe paper-cifar --data cifar10.zip --epochs 40
"""


@app.command(epilog=_EXAMPLES)
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=options.complete_recipe, help="The recipe to print."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the recipes that a job can name, or print one as a job file.

    `orch submit --recipe NAME` takes its values from there. Flags and job file win over it; it wins over the values
    that come with the names of data, network and weights.
    """
    from orchestrator.service import recipes as service

    to = render.mode(as_json=as_json)
    known = [service.load(each) for each in ([name] if name else service.names())]
    if to is render.Mode.JSON:
        from orchestrator.service import catalogviews

        render.document(
            catalogviews.RecipesPayload(recipes=tuple(catalogviews.RecipePart.model_validate(each) for each in known))
        )
    elif name:
        sys.stdout.write(known[0].text)
    else:
        column = render.Column[service.Recipe]
        columns = [
            column(title="RECIPE", value=lambda recipe: recipe.name),
            column(title="WHAT", value=lambda recipe: recipe.summary, fold=True),
        ]
        render.table(columns, known, to=to)
