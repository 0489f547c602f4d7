"""What `--json` prints of what uses a trained network."""

from pathlib import Path

from pydantic import Field

from orchestrator.service import views


class GuessPart(views.Part):
    """A class and how sure the network is of it."""

    label: str
    probability: float


class PredictionPayload(views.Payload):
    """What the network makes of one picture."""

    image: str
    guesses: tuple[GuessPart, ...]
    error: str | None


class MeasuredPayload(views.Payload):
    """The best checkpoint of a job on a split of any data set."""

    job: str
    data: str
    data_hash: str
    split: str = Field(description="train or val")
    evaluation: views.EvaluationPart


class ExportPayload(views.Payload):
    """An exported network."""

    job: str
    format: str
    path: Path
    preprocessing: Path
    card: Path
    checkpoint: str = Field(description="sha256 of the checkpoint that was exported")
    bytes: int
    sha256: str
    difference: float = Field(description="largest difference between a logit of the file and of the network")
    images: int = Field(description="pictures that were compared")
    pictures: str = Field(description="validation, or generated where this host has not the data")
