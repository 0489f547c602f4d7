"""What a stage writes into the job's log of its own accord: a line for each message that people want to read later."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import BaseModel

from orchestrator.core import masking
from worker import protocol

#: Standard output: the log of a job, or the terminal of whoever trains without a queue.
_OUT = 1


def write(message: BaseModel) -> None:
    """Write what a message says, with the time in UTC; a log that cannot be written stops no work."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    text = "".join(f"{now}  {line}\n" for line in lines(message))
    with suppress(OSError):
        os.write(
            _OUT, text.encode(errors="backslashreplace")
        )  # past all buffers: what is not written now would fail the process at its end


def lines(message: BaseModel) -> Iterator[str]:
    """Yield what a message says to people; progress and single steps say nothing."""
    match message:
        case protocol.DataReady(dataset=found):
            counts = ", ".join(f"{count} {split}" for split, count in found.counts.items())
            yield f"data {found.hash[:12]} of {masking.data(found.source)}: {len(found.classes)} classes, {counts}"
        case protocol.Environment():
            yield (
                f"trains on {message.device} ({message.cpu}, {message.instructions}), threads {message.threads}, "
                f"{message.layout}, {message.precision}, seed {message.seed}, torch {message.versions.get('torch')}"
            )
        case protocol.Resumed(attempt=None):
            yield "begins at step 0"
        case protocol.Resumed():
            yield f"goes on from step {message.step} of attempt {message.attempt}"
        case protocol.CheckpointWritten(checkpoint=point):
            yield from _epoch(message.metrics)
            yield f"checkpoint of step {point.step}, {point.bytes / 2**20:.1f} MiB{', the best so far' * point.best}"
        case protocol.Evaluated():
            yield (
                f"evaluation of step {message.checkpoint_step}: loss {message.loss:.4f}, "
                f"accuracy {message.accuracy:.1%}, {message.images} pictures, {message.seconds:.1f} s"
            )
        case protocol.Note():
            yield f"{message.kind}: {message.detail}"
        case protocol.Failed():
            yield f"failed, {message.reason}: {message.error}"
        case protocol.Ended(last_step=step):
            yield message.how if step is None else f"{message.how} at step {step}"


def _epoch(rows: Sequence[protocol.EpochMetrics]) -> Iterator[str]:
    for row in rows:
        pace = f"{row.seconds:.1f} s, {row.images / row.seconds:.1f} images/s" if row.seconds else ""
        yield f"epoch {row.epoch} {row.split}: loss {row.loss:.4f}, accuracy {row.accuracy:.1%}, {pace}"
