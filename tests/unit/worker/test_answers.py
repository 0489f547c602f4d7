"""One request, lines of answers: what is read is what was written, whatever names are in it."""

import io
import json
import os
import sys
from typing import Any

import pytest

from worker import answers


class Request(answers.Request):
    """What is asked here."""

    names: tuple[str, ...]


def asked(text: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any]]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    def work(request: Request, say: answers.Say) -> None:
        for name in request.names:
            say({"name": name})

    code = answers.serve(Request, work)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_names_of_files_that_are_no_utf8_go_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"\xe4.png")
    assert asked(json.dumps({"names": [name]}).encode(), monkeypatch, capsys) == (0, [{"name": name}])


@pytest.mark.parametrize("text", [b"", b'{"names": 1}', b'{"names": [], "more": 1}'])
def test_what_is_no_request_is_refused(
    text: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (said,) = asked(text, monkeypatch, capsys)
    assert (code, list(said)) == (answers.EXIT_REFUSED, ["refused"])
