"""Pictures of curves and tables as files; matplotlib draws them, which comes with the extra `plot`."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import errors
from orchestrator.service import drafts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.core.jobs import Evaluation
    from orchestrator.service.curves import Panel

#: How the files end that can be written.
SUFFIXES = (".png", ".svg", ".pdf")

#: How those end that are made of pixels: contact sheets.
SHEETS = (".png", ".jpg", ".jpeg")

#: More classes than these are drawn without a number in each cell.
_NUMBERED = 24

_DASHES = ("-", "--", ":", "-.")
_HUES = 10  # colours of matplotlib's cycle, which line styles tell apart further

Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Draw a picture instead: .png, .svg or .pdf. A file there is replaced."
    ),
]


def check(path: Path) -> None:
    """Refuse a picture that cannot be drawn before anything is looked up for it.

    Raises:
        UsageError: its ending is unknown, or its folder does not exist.
        OrchError: matplotlib is missing.

    """
    check_target(path, SUFFIXES)
    if importlib.util.find_spec("matplotlib") is None:
        raise errors.OrchError(
            "Matplotlib, which draws pictures, is not installed here.",
            why="It comes with the extra `plot`.",
            hint="pip install 'orch[plot]'",
        )


def check_target(path: Path, suffixes: Sequence[str]) -> None:
    """Raise UsageError where a file of one of these endings cannot be made."""
    with drafts.looking():
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    if is_folder or not has_folder:
        reason = f"{path} is a folder." if is_folder else f"There is no folder {path.parent}."
        raise errors.UsageError(reason, hint="Give another -o.")
    if path.suffix.lower() not in suffixes:
        raise errors.UsageError(
            f"{path.name!a} is no picture that can be written.",
            why=f"Files that end in {', '.join(suffixes)} can be.",
            hint=f"-o {path.with_suffix('.png').name}",
        )


def curves(panels: "Sequence[Panel]", path: Path) -> None:
    """Draw panels side by side, a line for each curve."""

    def draw(figure: "Figure") -> None:
        figure.set_size_inches(6.4 * len(panels), 4.4)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.set_title(panel.title)
            axes.set_xlabel({"time": "seconds"}.get(panel.axis, str(panel.axis)))
            axes.set_ylabel(panel.quantity)
            axes.grid(alpha=0.3)
            if panel.axis != "time":
                axes.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 1.25
            drawn = []
            for number, line in enumerate(panel.lines):
                xs, ys = zip(*line.curve.points, strict=True)
                dash = _DASHES[number // _HUES % len(_DASHES)]
                marker = "o" if len(xs) == 1 else ""
                drawn += axes.plot(xs, ys, dash, marker=marker, color=f"C{number % _HUES}", linewidth=1.6)
            # Handles are given by hand: by itself a legend leaves out what begins with an underscore.
            axes.legend(drawn, [line.label for line in panel.lines], frameon=False)

    _write(draw, path)


def confusion(evaluation: "Evaluation", title: str, path: Path) -> None:
    """Draw a confusion matrix: each cell coloured by its share of the pictures of its true class."""
    classes, rows = evaluation.classes, evaluation.confusion
    shares = [[count / max(1, sum(row)) for count in row] for row in rows]

    def draw(figure: "Figure") -> None:
        side = 2.6 + 0.5 * max(4, min(len(classes), 40))
        figure.set_layout_engine("compressed")  # cells are squares, which the usual layout makes no room for
        figure.set_size_inches(side + 1.2, side)
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="share of the true class")
        axes.set_title(title)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        places = range(len(classes))
        axes.set_xticks(places, classes, rotation=45, ha="right")
        axes.set_yticks(places, classes)
        for row in places if len(classes) <= _NUMBERED else ():
            for column in places:
                shade = "white" if shares[row][column] > 0.5 else "black"  # noqa: PLR2004 - half of the scale
                axes.text(column, row, str(rows[row][column]), ha="center", va="center", color=shade)

    _write(draw, path)


def _write(draw: "Callable[[Figure], None]", path: Path) -> None:
    """Draw into a file that is whole or not there; the same picture has the same bytes."""
    from matplotlib import rc_context  # an extra, and it takes half a second
    from matplotlib.figure import Figure

    dateless = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    # Names of jobs and classes are somebody's: a $ in them begins no formula.
    plain = rc_context({"text.parse_math": False, "svg.hashsalt": "orch"})
    with drafts.drafts(path) as (draft,), plain, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(draft, dpi=150, metadata=dateless)
