"""What `--json` prints of what a job is and what its result stands on."""

from pydantic import Field

from orchestrator.service import show, views


class SpecPayload(views.Payload):
    """A job's spec, and where each of its values comes from."""

    job: str
    spec: views.ShownSpec
    spec_hash: str
    origins: dict[str, str] = Field(
        description="flag, the path of a job file, recipe NAME, job ID of a clone, network, data or weights NAME, "
        "extend, default; given: by a spec in Python, or not known"
    )


class SourcePart(views.Part):
    """The working folder that a job was submitted in, as git had it."""

    commit: str | None
    branch: str | None = Field(description="null also for a detached head")
    dirty: bool | None = Field(description="whether tracked files differed from the commit")
    diff: str | None = Field(description="the difference; as git wrote it where its sha256 is diff_sha256")
    diff_sha256: str | None
    diff_bytes: int | None
    remark: str | None = Field(description="what is missing, or not as git wrote it")


class EnvironmentPart(views.Part):
    """What an attempt trained with, from its first step on."""

    versions: dict[str, str]
    device: str = Field(description="cpu, or the GPU's model")
    cpu: str = Field(description="the processor's model")
    instructions: str
    threads: int
    layout: str
    precision: str
    seed: int
    compiled: bool = Field(description="whether the training pass was compiled")
    code: str = Field(description="which machine code of orch's own it was computed by; empty where it was not")
    tf32: bool = Field(description="whether a GPU computed fp32 in TF32, with ten bits of the fraction")
    cudnn_benchmark: bool = Field(description="whether cuDNN tried its convolutions for each shape")


class TrainedPart(views.Part):
    """An attempt that has begun to train."""

    attempt: int
    run: int
    worker: str
    host: str
    environment: EnvironmentPart


class ProvenancePayload(views.Payload):
    """What a job's result stands on."""

    job: str
    spec_hash: str
    data_hash: str | None = Field(description="null before its data is known")
    source: SourcePart | None = Field(description="null where it was submitted in no repository")
    trained: tuple[TrainedPart, ...]


class OtherLossPart(views.Part):
    """The first step whose loss is another."""

    step: int
    recorded: float
    replayed: float


class VerdictPayload(views.Payload):
    """What doing a part of a training again came to."""

    job: str
    equal: bool = Field(description="whether all that was compared is equal to the last bit")
    first_step: int = Field(description="steps done before it")
    last_step: int
    losses: int = Field(description="steps whose losses were compared")
    loss: OtherLossPart | None
    differing: tuple[str, ...] | None = Field(
        description="what differs in the checkpoint at its end; null where none was compared"
    )
    elsewhere: tuple[str, ...] = Field(description="what differs here from where it trained")


def spec(shown: show.Shown) -> SpecPayload:
    """Return the payload of a job's spec."""
    job = shown.job
    return SpecPayload(job=job.id, spec=job.spec, spec_hash=job.spec_hash, origins=shown.origins)


def provenance(shown: show.Shown) -> ProvenancePayload:
    """Return the payload of what a job's result stands on."""
    return ProvenancePayload(
        job=shown.job.id,
        spec_hash=shown.job.spec_hash,
        data_hash=shown.job.data_hash,
        source=SourcePart.model_validate(shown.source) if shown.source else None,
        trained=tuple(TrainedPart.model_validate(attempt) for attempt in shown.trained),
    )
