"""Values in pipes, and text from elsewhere."""

import io
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pydantic
import pytest
from rich.console import Console

from orchestrator.cli import render
from orchestrator.core import states


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, ""),
        (True, "true"),
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (states.JobState.QUEUED, "queued"),
        (("a", "b"), "a,b"),
        (Path("/x"), "/x"),
        (datetime(2026, 11, 24, 5, 0, tzinfo=timezone(timedelta(hours=1))), "2026-11-24T04:00:00Z"),
        (datetime(2026, 11, 24, 4, 0, 0, 250_000, tzinfo=UTC), "2026-11-24T04:00:00.250000Z"),
        ("two\tfields\nand lines", "two fields and lines"),
    ],
)
def test_a_value_in_a_pipe_is_raw_and_one_field(value: object, printed: str) -> None:
    assert render.raw(value) == printed


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link", "link"),
        ("10%\r20%\r\nend", "10%\n20%\nend"),
        ("bell\x07 and \x9b2J", "bell and 2J"),
        ("tab\tand line\n", "tab\tand line\n"),
    ],
)
def test_text_from_elsewhere_cannot_steer_the_terminal(text: str, left: str) -> None:
    assert render.clean(text) == left


def test_a_file_whose_name_is_no_utf8_is_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    class Payload(pydantic.BaseModel):
        name: str
        path: Path

    name = os.fsdecode(b"\xe4.png")
    for shown in (render.document, render.json_line):
        shown(Payload(name=name, path=Path("/x") / name))
        assert json.loads(capsys.readouterr().out) == {"name": name, "path": f"/x/{name}"}


def test_a_pipe_gets_every_column_and_no_titles(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        render.Column[str](title="A", value=lambda row: row, shown=lambda row: row.upper()),
        render.Column[str](title="B", value=len, wide=True),
    ]
    render.table(columns, ["x" * 300, "y"], to=render.Mode.PIPE, prefix="row")
    assert capsys.readouterr().out == f"row\t{'x' * 300}\t300\nrow\ty\t1\n"


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ("note: one two three four", ["note: one two", "      three four"]),
        ("note: Do it: orch submit --lr 1e-4", ["note: Do it: orch submit --lr 1e-4"]),
        ("note: of --label-smoothing", ["note: of", "      --label-smoothing"]),
    ],
)
def test_talk_breaks_between_words_and_never_in_a_command(said: str, lines: list[str]) -> None:
    assert render.wrapped(said, indent=6, width=16).split("\n") == lines


def test_a_paragraph_is_filled_and_rows_hang_under_their_second_column() -> None:
    text = "one two\nthree four\n  name  what it is\n        and more\n  --a-flag"
    assert render.filled(text, 14).split("\n") == [
        "one two three",
        "four",
        "  name  what",
        "        it is",
        "        and",
        "        more",
        "  --a-flag",
    ]


@pytest.mark.parametrize("width", [80, 44, 36])
def test_what_names_a_row_is_whole_where_there_is_no_room(width: int) -> None:
    others = [f"COLUMN{number}" for number in range(6)]
    columns = [
        render.Column[str](title="JOB", value=lambda job: job),
        *(render.Column[str](title=title, value=lambda _job: "much to say") for title in others),
    ]
    target = Console(file=io.StringIO(), width=width)
    target.print(render.grid(columns, ["d129exb5", "fx9121az"], width=width))
    drawn = target.file.getvalue().splitlines()  # type: ignore[attr-defined] # it is the one above
    assert [line.split()[0] for line in drawn] == ["JOB", "d129exb5", "fx9121az"]
    assert max(map(len, drawn)) <= width
