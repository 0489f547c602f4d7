import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from orchestrator import log


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_lines_are_events_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    early = log.get("slot")  # as modules do when they are imported
    log.configure()
    early.info("claimed", job="abcdefgh")
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["part"], said["job"]) == ("claimed", "slot", "abcdefgh")


def test_a_full_disk_or_a_reader_that_has_gone_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closing it fails, by design
    monkeypatch.setattr("sys.stderr", full)
    log.configure()
    log.get("slot").info("claimed")
    with pytest.raises(OSError, match="No space"):  # of the line that it was told
        full.close()
