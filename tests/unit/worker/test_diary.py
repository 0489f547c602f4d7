"""What a stage writes into the job's log."""

import os
import re

import pytest
from pydantic import BaseModel

from orchestrator.core.states import Reason
from worker import diary, protocol

POINT = protocol.CheckpointInfo(attempt=2, epoch=1, step=23, path="a/b", bytes=3 * 2**20, sha256="0" * 64, best=True)
ROW = protocol.EpochMetrics(epoch=1, split="train", loss=1.5, accuracy=0.25, images=100, seconds=4.0)
FOUND = protocol.DatasetInfo(
    hash="6c1ea9db1431bac4",
    source="https://ada:secret@example.org/p.zip?token=secret",
    classes=("a", "b"),
    counts={"train": 8, "val": 2},
    bytes=1,
    path="/d",
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (protocol.Resumed(attempt=None, step=0), ["begins at step 0"]),
        (protocol.Resumed(attempt=2, step=23), ["goes on from step 23 of attempt 2"]),
        (
            protocol.CheckpointWritten(checkpoint=POINT, metrics=(ROW,)),
            [
                "epoch 1 train: loss 1.5000, accuracy 25.0%, 4.0 s, 25.0 images/s",
                "checkpoint of step 23, 3.0 MiB, the best so far",
            ],
        ),
        (protocol.Note(kind="picked", detail="channels_last"), ["picked: channels_last"]),
        (protocol.Failed(reason=Reason.DIVERGED, error="The loss is nan."), ["failed, diverged: The loss is nan."]),
        (protocol.Ended(how="stopped", last_step=7), ["stopped at step 7"]),
        (protocol.Ended(how="done"), ["done"]),
        (protocol.Progress(done=1, total=2), []),
        (protocol.Steps(values=((1, "loss", 0.5),)), []),
    ],
)
def test_a_line_says_what_a_message_means(message: BaseModel, said: list[str]) -> None:
    assert list(diary.lines(message)) == said


def test_a_source_is_written_without_its_secrets() -> None:
    (line,) = diary.lines(protocol.DataReady(dataset=FOUND))
    assert "secret" not in line
    assert line.endswith(": 2 classes, 8 train, 2 val")


def test_lines_have_a_time_and_are_out_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    diary.write(protocol.Ended(how="done"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  done\n", capfd.readouterr().out)


def test_a_log_on_a_full_disk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(diary, "_OUT", full)
    with pytest.raises(OSError, match="No space left"):
        os.write(full, b"so it is")
    diary.write(protocol.Ended(how="done"))
    os.close(full)
