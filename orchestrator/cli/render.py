"""The three ways to print: rich for people, tab-separated for pipes, JSON for programs.

Results go to stdout, talk to stderr. Rich is imported on terminals only: it costs 0.05 s.
"""

import json
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeVar

from orchestrator import errors
from orchestrator.cli import words

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType
    from rich.text import Text

Row = TypeVar("Row")

#: A terminal from this width on shows the wide columns too.
WIDE = 130

_GAP = 2
_NARROWEST = 6
_CUT = 2  # of a column that had to be whole, where there is no room at all
_FOLDED = 16  # a column whose values wrap is content with so much, where the others need their room

#: What a command that is named needs to mean the same home as this one.
_home: ContextVar[str] = ContextVar("home", default="")

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
#: And what makes a line be read in another order than it is written: marks of direction.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: The same, where they stand in JSON as they are.
_UNESCAPED = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

#: How text is broken: neither flags nor paths are.
_BETWEEN_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
#: What a row begins with: its indent, its name, and the gap behind it.
_HANGING = re.compile(r" +(?:\S+(?: \S+)* {2,})?")


class Mode(StrEnum):
    """Whom stdout is for."""

    TERMINAL = "terminal"  #: people
    PIPE = "pipe"  #: cut, awk, grep
    JSON = "json"  #: programs


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Row]):
    """A column: its raw value for pipes, and how it is said to people where that differs."""

    title: str
    value: Callable[[Row], object]
    shown: "Callable[[Row], str | Text] | None" = None
    right: bool = False
    wide: bool = False  #: left out on a narrow terminal, never in a pipe
    elastic: bool = False  #: cut on a terminal where room is short; all others are always whole
    fold: bool = False  #: long values wrap on a terminal


def mode(*, as_json: bool = False) -> Mode:
    """Return whom stdout is for."""
    if as_json:
        return Mode.JSON
    return Mode.TERMINAL if sys.stdout.isatty() else Mode.PIPE


def console(file: TextIO | None = None) -> "Console":
    """Return a rich console that interprets nothing in what it prints; it honours NO_COLOR and TERM=dumb."""
    from rich.console import Console

    return Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[Column[Row]], rows: Iterable[Row], *, to: Mode, prefix: str | None = None) -> None:
    """Print rows: aligned under titles on a terminal, tab-separated without titles in a pipe.

    `prefix` is a first field of every line in a pipe, where one command prints several kinds of lines.
    """
    if to is Mode.TERMINAL:
        target = console()
        target.print(grid(columns, rows, width=target.width))
        return
    for row in rows:
        line(*([prefix] if prefix else []), *(column.value(row) for column in columns))


def grid(columns: Sequence[Column[Row]], rows: Iterable[Row], *, width: int) -> "RenderableType":
    """Return rows as a rich table without lines."""
    from rich.table import Table

    chosen = [column for column in columns if width >= WIDE or not column.wide]
    lines = [[_cell(column, row) for column in chosen] for row in rows]
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, fitting in zip(chosen, _widths(chosen, lines, width), strict=True):
        drawn.add_column(
            clean(column.title),  # such as a class of somebody's data
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            width=None if column.fold else fitting,
        )
    for cells in lines:
        drawn.add_row(*cells)
    return drawn


def _widths(columns: "Sequence[Column[Row]]", lines: "Sequence[Sequence[str | Text]]", room: int) -> list[int]:
    """Return the width of each column: as its cells need it, elastic ones narrower where they must be.

    Where even that is too wide, all but the first give way: it names the row, and an id that is cut names nothing.
    """
    from rich.cells import cell_len

    widths = [
        max([cell_len(column.title), *(cell_len(str(cells[number])) for cells in lines)])
        for number, column in enumerate(columns)
    ]
    widths = [min(width, _FOLDED) if column.fold else width for width, column in zip(widths, columns, strict=True)]
    _narrow(widths, [number for number, column in enumerate(columns) if column.elastic], room, least=_NARROWEST)
    others = [number for number, column in enumerate(columns) if number and not column.fold]
    _narrow(widths, others, room, least=_CUT)
    return widths


def _narrow(widths: list[int], giving: Sequence[int], room: int, *, least: int) -> None:
    """Take from the widest of the columns that give way, one by one, until all fit or none has more than the least."""
    while giving and sum(widths) + _GAP * len(widths) > room:
        widest = max(giving, key=lambda number: widths[number])
        if widths[widest] <= least:
            return
        widths[widest] -= 1


def pairs(rows: Iterable[tuple[str, "str | Text"]]) -> "RenderableType":
    """Return names and values as a rich table; long values wrap."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in rows:
        drawn.add_row(name, clean(value) if isinstance(value, str) else value)
    return drawn


def state(word: str, of: str | None = None) -> "Text":
    """Return a symbol and a word; `of` names the state whose symbol it is, where the word is another."""
    from rich.text import Text

    symbol, style = words.SYMBOLS.get(of or word, ("·", ""))
    return Text(f"{symbol} {word}", style=style)


def line(*fields: object) -> None:
    """Print one tab-separated line."""
    sys.stdout.write("\t".join(raw(value) for value in fields) + "\n")


def document(payload: "BaseModel") -> None:
    """Print a whole JSON document."""
    sys.stdout.write(_json(payload, indent=2) + "\n")


def json_line(payload: "BaseModel") -> None:
    """Print one line of a JSON stream, at once."""
    sys.stdout.write(_json(payload) + "\n")
    sys.stdout.flush()


def _json(payload: "BaseModel", *, indent: int | None = None) -> str:
    """Return JSON that cannot steer a terminal; the bytes of a file's name that are no UTF-8 are as Python has them."""
    try:
        text = payload.model_dump_json(indent=indent)
    except ValueError:
        text = json.dumps(payload.model_dump(mode="json"), indent=indent)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def raw(value: Any) -> str:
    """Return a value for a pipe: ISO times in UTC, plain numbers, no tabs, line breaks or escape codes."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Enum():
            return str(value.value)
        case tuple() | list():
            return ",".join(raw(item) for item in value)
    return clean(str(value)).replace("\t", " ").replace("\n", " ")


def clean(text: str) -> str:
    """Return text from elsewhere without escape codes and control characters, so that it cannot steer a terminal."""
    plain = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", plain)


def address(home: Path | None) -> None:
    """Let the commands that are named from now on be those for `home`; None: for the home of the settings."""
    _home.set("" if home is None else f" --home {shlex.quote(str(home))}")


def addressed(text: str) -> str:
    """Return text whose commands, which begin with a backquote, mean the same home as this one."""
    return text.replace("`orch ", f"`orch{_home.get()} ")


def talk(text: str, *, label: str = "", style: str = "") -> None:
    """Say something to people, on stderr; what cannot be said stops nothing."""
    text = addressed(text)
    try:
        _say(f"{label} {clean(text)}" if label else clean(text), label, style)
    except OSError:  # a full disk, a closed pipe; what is still buffered goes nowhere at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _say(said: str, label: str, style: str) -> None:
    if not sys.stderr.isatty():
        sys.stderr.write(said + "\n")
        return
    from rich.text import Text

    target = console(sys.stderr)
    painted = Text(wrapped(said, indent=len(label) + 1 if label else 0, width=target.width))
    painted.stylize(style, 0, len(label))
    target.print(painted, soft_wrap=True)


def wrapped(said: str, *, indent: int, width: int) -> str:
    """Return text broken between words, but for what names a command, to be copied, or has lines of its own."""
    if "orch " in said or "\n" in said or width <= indent:
        return said
    return textwrap.fill(said, width, subsequent_indent=" " * indent, **_BETWEEN_WORDS)


def prose(text: str) -> None:
    """Print paragraphs, and indented rows of a name and what it is; on a terminal they are broken between words."""
    if sys.stdout.isatty():
        width = console().width
        text = "\n\n".join(filled(paragraph, width) for paragraph in text.split("\n\n"))
    sys.stdout.write(text + "\n")


def filled(paragraph: str, width: int) -> str:
    """Return a paragraph in lines of at most so many characters; rows go on where their second column begins."""
    whole: list[str] = []
    for line in paragraph.split("\n"):
        if whole and not line.startswith(" ") and not whole[-1].startswith(" "):
            whole[-1] += f" {line}"
        else:
            whole.append(line)
    hanging = [(line, " " * len((_HANGING.match(line) or [""])[0])) for line in whole]
    return "\n".join(textwrap.fill(line, width, subsequent_indent=indent, **_BETWEEN_WORDS) for line, indent in hanging)


def note(text: str) -> None:
    """Say something that people should know of."""
    talk(text, label="note:", style="bold yellow")


def following(commands: Iterable[str]) -> None:
    """Name the commands that are of use next."""
    for command in commands:
        talk(command.replace("orch ", f"orch{_home.get()} ", 1), label="  $", style="dim")


def problem(error: errors.OrchError) -> None:
    """Say what happened, why, and what to try."""
    talk(error.message, label="error:", style="bold red")
    if error.why:
        talk(error.why, label="  why:", style="bold")
    if error.hint:
        talk(error.hint, label="  try:", style="bold")


def _cell(column: Column[Row], row: Row) -> "str | Text":
    if column.shown is None:
        return raw(column.value(row))
    shown = column.shown(row)
    return clean(shown) if isinstance(shown, str) else shown
