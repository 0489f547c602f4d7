"""`make audit`, with a stand-in for pip-audit: what it makes of each kind of answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"

WELL = {"name": "typer", "version": "0.29.0", "vulns": []}
KNOWN = {"name": "old", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}]}
UNFIXED = {"name": "new", "version": "3.0", "vulns": [{"id": "CVE-2", "fix_versions": []}]}
OURS = {"name": "orch", "skip_reason": "distribution marked as editable"}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ({"dependencies": [WELL, OURS]}, 0, ["1 of 2 packages were looked up."]),
        (
            {"dependencies": [WELL, KNOWN, UNFIXED]},
            1,
            [
                "old 1.0 CVE-1 fixed in 1.1, 2.0",
                "new 3.0 CVE-2 fixed in no version yet",
                "3 of 3 packages were looked up.",
            ],
        ),
        ({"dependencies": [OURS]}, 0, ["No database of advisories answers: nothing was looked up."]),
        (None, 0, ["No database of advisories answers: nothing was looked up."]),
    ],
    ids=["all well", "vulnerable", "all skipped", "offline"],
)
def test_audit_tells_the_vulnerable_from_the_unreachable(
    tmp_path: Path, answer: Any, code: int, said: list[str]
) -> None:
    (tmp_path / "answer").write_text("" if answer is None else json.dumps(answer), "utf-8")
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f'#!/bin/sh\ncat "{tmp_path}/answer"\nexit 1\n', "utf-8")
    stand_in.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}  # noqa: TID251 - for a child
    done = subprocess.run([sys.executable, AUDIT], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (code, said)
