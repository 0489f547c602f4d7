"""Old code on a newer schema, and the reverse: both versions are named, with what to do, wherever it is seen."""

import subprocess
import sys

import pytest

from orchestrator import config
from orchestrator.store import migrations
from tests.migration.conftest import elsewhere, make
from tests.migration.test_upgrade import set_version
from tests.support.running import ROOT

STEPS = {"0000": "Run `orch db upgrade`.", "9999": "Install the newer orch"}


@pytest.mark.parametrize("found", STEPS)
@pytest.mark.parametrize("command", [["orchestrator", "status"], ["orchestrator", "submit"], ["worker"]], ids="-".join)
def test_another_schema_is_refused_with_code_4(
    empty_url: str, settings: config.Settings, command: list[str], found: str
) -> None:
    make(empty_url, migrations.HEAD)
    set_version(empty_url, found)
    there = elsewhere(settings, empty_url)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=config.child_environment(config.Settings(**there.model_dump(exclude_unset=True))),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 4, said
    for words in (found, migrations.HEAD, STEPS[found]):
        assert words in said
    assert "Traceback" not in said
