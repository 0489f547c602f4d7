"""`orch confusion`: which classes a network takes for which."""

from typing import TYPE_CHECKING

import typer

from orchestrator.cli import options, picture, render, words

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.core.jobs import Evaluation
    from orchestrator.service.confusion import ClassScore, Confusion

app = typer.Typer(add_completion=False)

#: Mistakes that are named where the terminal has no room for the whole matrix.
_NAMED = 10


@app.command(epilog="Examples:\n\norch confusion @latest\n\norch confusion k3f9m2qa -o confusion.png")
def confusion(
    context: typer.Context, job: options.Job, output: picture.Output = None, as_json: options.AsJson = False
) -> None:
    """Show which classes a job's network takes for which.

    The best checkpoint of the last training that ended has classified the validation split: precision, recall, F1 and
    number of pictures (support) of each class, and the matrix of true and predicted classes. In a pipe each line begins
    with what it is: class, average, cell.
    """
    from orchestrator.service import confusion as service

    if output is not None:
        picture.check(output)
    to = render.mode(as_json=as_json)
    with options.opened(context) as opened:
        found = service.confusion(opened.store, job)
    if not found.of_best:
        render.note(f"This is of {words.evaluated(found.evaluation.checkpoint_step, best=False)}.")
    if output is not None:
        name = found.job.name or found.job.id
        picture.confusion(found.evaluation, f"{name}: {words.percent(found.evaluation.accuracy)}", output)
        render.talk(f"Drawn to {output}.")
    if to is render.Mode.JSON:
        from orchestrator.service import resultviews

        render.document(resultviews.confusion(found))
    elif output is not None:
        return
    elif to is render.Mode.PIPE:
        _to_pipe(found)
    else:
        _to_people(found)


def _to_pipe(found: "Confusion") -> None:
    render.table(_columns(), found.scores, to=render.Mode.PIPE, prefix="class")
    render.table(_columns(), [found.average], to=render.Mode.PIPE, prefix="average")
    for truth, counts in zip(found.evaluation.classes, found.evaluation.confusion, strict=True):
        for predicted, count in zip(found.evaluation.classes, counts, strict=True):
            render.line("cell", truth, predicted, count)


def _to_people(found: "Confusion") -> None:
    console, evaluation = render.console(), found.evaluation
    console.print(
        f"accuracy {words.percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
        f"{words.plural(evaluation.images, 'picture')}"
    )
    console.print()
    console.print(render.grid(_columns(), [*found.scores, found.average], width=console.width))
    console.print()
    cells = [_predicted(found, number) for number in range(len(evaluation.classes))]
    titles = [render.Column[int](title="TRUTH", value=lambda row: evaluation.classes[row]), *cells]
    if matrix_width(evaluation) <= console.width:
        console.print(render.grid(titles, range(len(evaluation.classes)), width=console.width))
        return
    mistakes = found.mistakes
    for mistake in mistakes[:_NAMED]:
        said = f"{words.plural(mistake.count, 'picture')} of {mistake.truth} taken for {mistake.predicted}"
        console.print(render.clean(said))
    rest = sum(mistake.count for mistake in mistakes[_NAMED:])
    others = words.plural(rest, "other mistake") if rest else "no other mistake"
    console.print(f"and {others}" if mistakes else "no mistake")
    render.talk("The matrix has no room here: `-o confusion.png` draws it, a pipe has every cell.")


def matrix_width(evaluation: "Evaluation") -> int:
    """Return how wide the matrix is on a terminal."""
    from rich.cells import cell_len

    names = [cell_len(render.clean(name)) for name in evaluation.classes]
    largest = max(len(str(count)) for row in evaluation.confusion for count in row)
    return max(5, *names) + 2 + sum(max(name + 2, largest) + 2 for name in names)


def _columns() -> "list[render.Column[ClassScore]]":
    return [
        render.Column(title="CLASS", value=lambda score: score.name, elastic=True),
        render.Column(
            title="PRECISION",
            value=lambda score: score.precision,
            shown=lambda score: words.percent(score.precision),
            right=True,
        ),
        render.Column(
            title="RECALL",
            value=lambda score: score.recall,
            shown=lambda score: words.percent(score.recall),
            right=True,
        ),
        render.Column(
            title="F1", value=lambda score: score.f1, shown=lambda score: words.percent(score.f1), right=True
        ),
        render.Column(title="SUPPORT", value=lambda score: score.support, right=True),
    ]


def _predicted(found: "Confusion", column: int) -> render.Column[int]:
    matrix = found.evaluation.confusion

    def shown(row: int) -> "Text":
        from rich.text import Text

        count = matrix[row][column]
        return Text(str(count) if count else "·", style="bold" if row == column else "" if count else "dim")

    return render.Column(
        title=f"→ {found.evaluation.classes[column]}", value=lambda row: matrix[row][column], shown=shown, right=True
    )
