"""The fields of a job spec, each by itself: type, range, default and the words of its flag of `submit`.

The defaults are the reference notebook's.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.core import limits, masking, networks, retry, spelling, weights
from orchestrator.core.states import Reason

_SHA256 = re.compile(r"[0-9a-f]{64}")
_Fraction = Annotated[float, Field(gt=0, le=1)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Channels = tuple[float, float, float]
_PositiveChannels = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


#: How many of a job's checkpoints stay.
Keep = int | Literal["all"]

#: Numbers to compute in; `auto` is one of the others, by the device.
Precision = Literal["fp32", "bf16", "fp16", "auto"]

#: Part of the network that learns.
Part = Literal["all", "last-block", "head"]


class SpecFields(BaseModel):
    """What a job spec says; what the fields are together, `specs.JobSpec` knows."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # nobody checks by these alone; building would take every command some milliseconds
    )

    data: str = Field(
        "cats_and_dogs", min_length=1, description="data set: a name, URL, archive or folder; see `orch help data`"
    )
    data_sha256: str | None = Field(None, description="digest (sha256) that the downloaded archive must have")

    network: str = Field("densenet121", description="network by name, as `orch models` lists them")
    growth_rate: int = Field(32, ge=1, le=256, description="channels that each layer adds")
    blocks: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (6, 12, 24, 16), min_length=1, max_length=8, description="layers of each dense block"
    )
    reduction: _Fraction = Field(0.5, description="share of channels that a transition keeps")
    stem: networks.Stem = Field("cifar", description="first layers: cifar: 3x3 convolution; imagenet: 7x7 and max-pool")
    stem_channels: int | None = Field(None, ge=1, le=1024, description="channels of the stem; unset: two growth rates")
    bottleneck: int = Field(4, ge=0, le=64, description="width of a layer's bottleneck, in growth rates; 0: none")
    transition_relu: bool = Field(default=False, description="ReLU in transitions, as in torchvision")
    dropout: float = Field(0.0, ge=0, lt=1, description="share dropped after each convolution but the first")

    weights: str | None = Field(
        None,
        max_length=4096,
        description="weights to start from: imagenet, a .safetensors or .pth file, or the best checkpoint of a job",
    )
    weights_sha256: str | None = Field(None, description="digest (sha256) that the file of weights must have")
    train: Part = Field(
        "all",
        description="what learns: all; last-block; or head, the classifier alone, on features that are computed once "
        "for each picture, without augmentation. What does not learn keeps its weights and BatchNorm statistics",
    )
    head_epochs: int = Field(
        0, ge=0, le=100_000, description="epochs in which the head learns alone, before the others"
    )
    head_lr: float | None = Field(None, gt=0, le=10, description="learning rate of these epochs; unset: lr")

    image_size: int = Field(224, ge=8, le=2048, description="side of the square crop, pixels")
    crop_scale: tuple[_Fraction, _Fraction] = Field(
        (0.08, 1.0), description="range of the random crop's share of the picture"
    )
    crop_padding: int = Field(
        0, ge=0, le=512, description="pixels to pad by before a random crop of the whole size, as for CIFAR"
    )
    val_crop: _Fraction = Field(0.875, description="share of the side that validation's centre crop keeps")
    flip: bool = Field(default=True, description="mirror training pictures at random")
    randaugment: int = Field(0, ge=0, le=16, description="random operations on each training picture; 2 is usual")
    randaugment_magnitude: int = Field(9, ge=0, le=30, description="strength of these operations")
    mixup: float = Field(
        0, ge=0, le=10, description="blend pictures and labels in pairs: alpha of Beta(alpha, alpha); 0.2 is usual"
    )
    cutmix: float = Field(
        0, ge=0, le=10, description="paste a part of one picture into another: alpha as for mixup; 1 is usual"
    )
    progressive_sizes: tuple[Annotated[int, Field(ge=8, le=2048)], ...] = Field(
        (), max_length=8, description="smaller sides to begin training with, pixels"
    )
    progressive_until: tuple[_Share, ...] = Field(
        (), max_length=8, description="share of the epochs at which each of these sizes ends"
    )
    pipeline: Literal["compat", "fast"] = Field(
        "compat",
        description="how pictures are resized: compat: by Pillow, to the notebook's bits; fast: by torch, in half the "
        "time and within one of 255 levels",
    )
    mean: _Channels = Field((0.490, 0.449, 0.411), description="mean of each channel")
    std: _PositiveChannels = Field((0.231, 0.221, 0.230), description="deviation of each channel")

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer: adam, adamw or sgd")
    lr: float = Field(1e-4, gt=0, le=10, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=False, description="Nesterov's form of sgd's momentum")
    weight_decay: float = Field(
        0, ge=0, le=1, description="weight decay; adamw's is decoupled, others' is in gradients"
    )
    decay_norm: bool = Field(default=False, description="decay BatchNorm's parameters and the biases as well")
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = Field(
        "constant", description="schedule of the learning rate: constant, step, cosine or one-cycle"
    )
    lr_steps: tuple[_Share, ...] = Field(
        (0.5, 0.75), max_length=16, description="shares of the training at which the rate falls, with schedule step"
    )
    lr_gamma: _Fraction = Field(0.1, description="factor by which the rate falls, with schedule step")
    lr_end: float = Field(0, ge=0, le=10, description="learning rate at the end, with schedule cosine")
    warmup_epochs: float = Field(0, ge=0, le=1000, description="epochs in which the rate first rises, whatever follows")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; a longer one is shortened")
    accumulate: int = Field(
        1, ge=1, le=1024, description="batches that make a step; BatchNorm sees each alone, unlike one large batch"
    )

    epochs: int = Field(5, ge=1, le=100_000, description="passes over the training pictures")
    batch_size: int = Field(
        4,
        ge=2,
        le=65_536,
        description="pictures in a batch, two or more; or auto: the largest power of two up to 128 that this host's "
        "memory allows for training on its CPUs, chosen when the job is submitted; lr and accumulate do not follow it",
    )
    label_smoothing: float = Field(0, ge=0, lt=1, description="share of each label that is spread over all classes")
    ema: float = Field(
        0, ge=0, lt=1, description="decay of a running average of the weights, which is validated and used; 0: none"
    )
    patience: int | None = Field(
        None, ge=1, description="end early, as succeeded, after so many epochs in a row without a better validation"
    )
    patience_metric: Literal["accuracy", "loss"] = Field("accuracy", description="what patience looks at")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, order and augmentation")
    loader_workers: int = Field(
        2,
        ge=0,
        le=64,
        description="threads or processes that load pictures, whichever are faster; none for sets under 8 MiB",
    )

    memory: networks.Memory = Field(
        "plain",
        description="what is kept for backward: plain: all; balanced: a third; lean: a twentieth; the rest is computed "
        "again, to the same bits",
    )
    layout: Literal["contiguous", "channels_last", "auto"] = Field(
        "contiguous",
        description="how pictures lie in memory: contiguous; channels_last; auto: the faster one at the first step",
    )
    precision: Precision = Field(
        "fp32", description="numbers to compute in: fp32; bf16 or fp16, mixed with it; auto: what suits the device"
    )
    compile: bool = Field(
        default=False,
        description="compile the training pass before the first step: a second on a CPU, whose steps then take up to "
        "two fifths less; where that fails it trains without, and an event says why; for one device, memory plain and "
        "a network that all learns",
    )
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="devices of one host that train it together: GPUs, or CPU slots of a worker without GPUs",
    )

    checkpoint_minutes: float = Field(10, gt=0, le=1440, description="minutes between checkpoints inside an epoch")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints inside an epoch")
    keep: Keep = Field(
        2,
        description="newest checkpoints that stay on disk, beside the best one: 1 or more, or all",
        examples=[5, "all"],
    )
    max_duration: float | None = Field(None, gt=0, description="hours of running after which the job fails")
    preemptible: bool = Field(
        default=False,
        description="yield the device, after a checkpoint at the next step, to a job of higher priority that is next, "
        "and go on later",
    )
    retries: dict[Reason, Annotated[int, Field(ge=0, le=retry.ABSOLUTE_LIMIT)]] = Field(
        {},
        description="how often to try again without progress, by reason of the failure, such as lost=10,oom=0; the "
        "others as usual: " + ", ".join(f"{reason}={count}" for reason, count in retry.LIMITS.items()),
    )

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        if name not in networks.NETWORKS:
            raise ValueError(f"unknown network {masking.value(name)}{spelling.nearest(name, networks.NETWORKS)}")
        return name

    @field_validator("retries", mode="before")
    @classmethod
    def _retries_may_be_text(cls, given: Any) -> Any:
        return limits.pairs(given)

    @field_validator("retries")
    @classmethod
    def _retries_may_help(cls, given: dict[Reason, int]) -> dict[Reason, int]:
        if in_vain := sorted(given.keys() - retry.REPEATABLE):
            known = ", ".join(sorted(retry.REPEATABLE))
            raise ValueError(f"{in_vain[0]} would only come again: retries are for {known}")
        return given

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_is_a_number_or_all(cls, given: Any) -> Any:
        text = str(given).strip()
        if text == "all":
            return text
        if isinstance(given, bool) or not re.fullmatch(r"[1-9]\d{0,8}", text):
            raise ValueError("it is a number from 1 on, or all")
        return int(text)

    @field_validator("data")
    @classmethod
    def _data_can_be_named(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("no name, URL or path holds a zero byte")
        return text

    @field_validator("weights")
    @classmethod
    def _weights_can_be_named(cls, text: str | None) -> str | None:
        if text is not None and (fault := weights.fault(text)) is not None:
            raise ValueError(fault)
        return text

    @field_validator("data_sha256", "weights_sha256")
    @classmethod
    def _digest_is_one(cls, digest: str | None) -> str | None:
        if digest is not None and not _SHA256.fullmatch(digest):
            raise ValueError("a sha256 is 64 hexadecimal digits in lower case")
        return digest
