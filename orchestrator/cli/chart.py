"""Charts in the terminal, each as wide as it may be; several stand beside each other where there is room."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotext
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli import render
from orchestrator.core import curves
from orchestrator.core.curves import Point
from orchestrator.service.curves import Panel

#: Narrower terminals draw charts below each other.
_SIDE_BY_SIDE = 100

_HEIGHT = 11
_NARROWEST = 20
_TICKS = 6

#: More points than these are drawn as means: a terminal has no room for them.
POINTS = 200

#: Markers differ, so that lines can be told apart without colours.
_MARKERS = ("braille", "dot", "x", "o", "+", "*", "#", "%", "@", "=")
_HUES = ("cyan", "green", "magenta", "yellow", "red", "blue", "white", "orange", "gray", "cyan+")


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is drawn; without a label it is the only one."""

    points: Sequence[Point]
    label: str | None = None


def panel(panel: Panel, *, colour: bool, width: int) -> Text | None:
    """Return the chart of a panel, None where there is nothing to draw yet."""
    alone = len(panel.lines) == 1
    lines = [
        Line(points=curves.thinned(line.curve.points, POINTS), label=None if alone else line.label)
        for line in panel.lines
    ]
    title = f"{panel.title}: {panel.lines[0].label}" if alone else panel.title
    return chart(title, lines, colour=colour, width=width)


def chart(title: str, lines: Sequence[Line], *, colour: bool, width: int) -> Text | None:
    """Return a chart of lines, None where none of them has two points."""
    if not any(len(line.points) > 1 for line in lines):
        return None
    plotext.clear_figure()
    plotext.plotsize(width, _HEIGHT)
    plotext.title(render.clean(title))
    plotext.theme("clear")
    for number, line in enumerate(lines):
        plotext.plot(
            [x for x, _ in line.points],
            [y for _, y in line.points],
            label=render.clean(line.label) if line.label else None,
            marker=_MARKERS[number % len(_MARKERS)],
            color=_HUES[number % len(_HUES)] if colour else None,
        )
    plotext.xticks(*_ticks([x for line in lines for x, _ in line.points]))
    return Text.from_ansi(plotext.build().rstrip("\n"))


def _ticks(places: Sequence[float]) -> tuple[list[float], list[str]]:
    """Return round numbers along the axis, and how each is said."""
    low, high = min(places), max(places)
    step = next(
        size * factor
        for size in (10.0**power for power in range(-6, 12))
        for factor in (1, 2, 5)
        if (high - low) / (size * factor) < _TICKS
    )
    if all(float(place).is_integer() for place in places):
        step = max(1.0, step)
    first = -(-low // step)
    ticks = [(first + number) * step for number in range(_TICKS + 1) if (first + number) * step <= high]
    return ticks, [f"{tick:.6g}" for tick in ticks]


def room(width: int) -> int:
    """Return how wide a chart is on a terminal of that width."""
    return max(_NARROWEST, (width - 4) // 2 if width >= _SIDE_BY_SIDE else width - 1)


def together(charts: Sequence[Text], *, width: int) -> list[RenderableType]:
    """Return charts in pairs where there is room for two, else below each other."""
    if width < _SIDE_BY_SIDE:
        return list(charts)
    pairs: list[RenderableType] = []
    for start in range(0, len(charts), 2):
        grid = Table.grid(padding=(0, 2))
        grid.add_row(*charts[start : start + 2])
        pairs.append(grid)
    return pairs
