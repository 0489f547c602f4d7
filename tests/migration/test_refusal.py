"""Old code on a newer schema, and the reverse: both versions are named, with what to do, wherever it is seen."""

import subprocess
import sys

import pytest

from orchestrator import config
from orchestrator.store import migrations
from tests.integration.cli.conftest import Orch
from tests.migration.conftest import elsewhere, make
from tests.migration.test_upgrade import set_version
from tests.support.running import ROOT

STEPS = {"0000": "Run `orch db upgrade`.", "9999": "Install the newer orch"}
#: Which versions a worker, in a process of its own, finds in which databases.
WORKERS = {("0000", "sqlite"), ("9999", "postgresql")}


@pytest.mark.parametrize("found", STEPS)
def test_another_schema_is_refused_with_code_4(
    empty_url: str, settings: config.Settings, orch: Orch, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    make(empty_url, migrations.HEAD)
    set_version(empty_url, found)
    monkeypatch.setenv(config.variable("database_url"), empty_url)
    told = {word: (ran.code, ran.err) for word in ("status", "submit") for ran in [orch(word)]}
    if (found, empty_url.partition(":")[0].partition("+")[0]) in WORKERS:
        told["worker"] = _worker(elsewhere(settings, empty_url))
    for word, (code, err) in told.items():
        said = " ".join(err.split())
        assert code == 4, (word, said)
        for words in (found, migrations.HEAD, STEPS[found]):
            assert words in said, word
        assert "Traceback" not in said, word


def _worker(there: config.Settings) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        env=config.child_environment(config.Settings(**there.model_dump(exclude_unset=True))),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr
