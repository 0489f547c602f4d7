"""Canaries again: nodes, and what they leave behind, show no password or token that orch was given."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.engine import make_url

from orchestrator import config
from orchestrator.core import specs, states
from tests.faults.test_secrets import AWAY, CANARY, NODES
from tests.integration.cli.conftest import OrchIn
from tests.support import archives, httpserver, oracle, pictures, running, valkey
from tests.support.waiting import until

_REFUSED = "onnection refused"
#: Stands for torch, whose import takes the longest: in it a fork server waits for its node's end.
_TORCH = "import sys\nsys.stdin.read()\nraise ImportError\n"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("words", sorted(NODES), ids=" ".join)
def test_node_that_cannot_start_shows_no_secret(
    words: tuple[str, ...], settings: config.Settings, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(_TORCH, encoding="ascii")
    environment = config.child_environment(settings.model_copy(update={"download_slots": 1}))
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])])
    for name, value in AWAY.items():
        said = tmp_path / name
        with said.open("wb") as output:
            node = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *words, "--debug"],
                env={**environment, name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            # A node whose servers are away says so, and goes on asking.
            until(lambda: node.poll() is not None or _REFUSED in said.read_text("utf-8"), seconds=90)  # noqa: B023 - called at once
        finally:
            node.kill()
        assert node.wait() != 0
        until(lambda: not running.processes_of(settings.home), seconds=60)
        assert _REFUSED in said.read_text("utf-8") or words == ("demo",)  # which takes no other servers
        assert CANARY not in said.read_text("utf-8")


def arguments_of(home: Path) -> str:
    """Return the argument lists of every process of the home, as `ps` shows them to everybody."""
    said = []
    for process in running.processes_of(home):
        try:
            said.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return "\n".join(said)


def holding(folder: Path, canary: bytes) -> list[Path]:
    """Return the files below `folder`, but for the database, whose names or bytes have the canary."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("orch.db")]
    return [path for path in files if canary in path.read_bytes() or canary in os.fsencode(path)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_whole_life_of_a_job_leaves_no_secret_behind(tmp_path: Path, postgres_url: str, orch_in: OrchIn) -> None:
    """With a password for the database, one for the broker, and an account and a token in the URL of the data."""
    database = make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)
    home = tmp_path / "home"
    with (
        valkey.Server(tmp_path / "broker", f"requirepass {CANARY}", password=CANARY) as broker,
        httpserver.Server() as server,
    ):
        server.on(f"/pets.zip?token={CANARY}", httpserver.Reply(body=archives.zipped(pictures.members())))
        server.on(f"/gone.zip?token={CANARY}", httpserver.Reply(status=404))
        kept: dict[str, Any] = {
            "database_url": database,
            "broker_url": broker.url,
            "devices": "cpu",
            "allow_private_hosts": True,
            "artifacts": home / "a",
        }
        with running.installation(home, **kept) as installed:
            node, orch = installed.start_node(), orch_in(installed)
            recipe = {"network": "densenet_tiny", "image_size": 16, "epochs": 1, "crop_scale": [0.5, 1]}
            account = f"http://{CANARY}:{CANARY}@127.0.0.1:{server.port}"
            good = installed.submit(specs.parse({"data": f"{account}/pets.zip?token={CANARY}", **recipe}))
            bad = installed.submit(specs.parse({"data": f"{account}/gone.zip?token={CANARY}", **recipe}))
            until(lambda: installed.store.get(good.id).attempt > 0, seconds=120)
            assert CANARY not in arguments_of(home)
            installed.wait(good.id, states.JobState.SUCCEEDED)
            installed.wait(bad.id, states.JobState.FAILED)
            for job in (good, bad):
                ended = installed.store.get(job.id)
                said = f"{installed.log(job.id)} {installed.store.events(job.id)} {ended.error} {ended.hint}"
                assert CANARY not in said
                for words in (("status", job.id), ("status", job.id, "--json"), ("events", job.id), ("logs", job.id)):
                    ran = orch(*words)
                    assert CANARY not in ran.out + ran.err
            assert any("authorization" in seen.headers for seen in server.requests)  # it was used, all the same
            oracle.holds(installed, promised=[good.id, bad.id])
            node.terminate()
            node.wait(90)
            assert holding(home, CANARY.encode()) == []
            assert holding(home, good.id.encode()) != []  # so that a search that finds nothing would be seen
