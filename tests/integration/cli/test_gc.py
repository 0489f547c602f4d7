"""`orch gc`, with the process that it asks: `tests/unit/worker/test_garbage.py` has the rules."""

from collections.abc import Iterator

import pytest

from orchestrator import config, errors
from orchestrator.service import asking
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.support import asked


def test_a_look_removes_nothing_and_says_what_would_be_free(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = parts.submit(store)
    folder = settings.artifact_dir / job.id
    (folder / "attempt-0001").mkdir(parents=True)
    (folder / "attempt-0001" / "log.txt").write_bytes(b"0123456789")
    store.delete(job.id, actor="ada")
    looked = orch("gc", "--dry-run")
    assert looked.code == 0
    assert looked.rows == [["deleted job", "10", "false", job.id, str(folder), "its job was deleted"]]
    assert "10 Bytes would be free." in looked.err
    assert folder.exists()
    asked.here(monkeypatch)
    ran = orch("gc")
    assert (ran.rows[0][2], folder.exists()) == ("true", False)
    assert "10 Bytes are free." in ran.err
    assert "There is nothing to remove." in orch("gc").err


@pytest.mark.usefixtures("store")
def test_what_fails_half_way_says_what_it_has_removed(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {
        "kind": "orphan",
        "path": "/x",
        "bytes": 10,
        "job": "0000abcd",
        "removable": True,
        "removed": True,
        "why": "y",
    }

    def ask(*_: object) -> Iterator[asking.Answer]:
        yield {"item": item}
        raise errors.OrchError("The process that was asked failed.")

    monkeypatch.setattr(asking, "ask", ask)
    ran = orch("gc")
    assert (ran.code, ran.rows) == (1, [["orphan", "10", "true", "0000abcd", "/x", "y"]])
    assert "10 Bytes are free." in ran.err
    assert "The process that was asked failed." in ran.err
