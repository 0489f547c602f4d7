"""What to train: the job spec. Its defaults are the reference notebook's, its fields are the flags of `submit`."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orchestrator import errors
from orchestrator.core import limits, masking, networks, retry, weights
from orchestrator.core.states import Reason

#: Raised when a spec means something else to the worker than before; older workers decline newer specs.
SPEC_VERSION = 6

#: Version 1's fields. Later ones are kept and hashed only where they differ from their defaults: so a spec that says
#: nothing new keeps its digest, and an older worker can read the checkpoints of a job that was its own.
FIRST_FIELDS = frozenset(
    (
        *("data", "data_sha256", "network", "growth_rate", "blocks", "reduction", "stem"),
        *("image_size", "crop_scale", "flip", "mean", "std", "optimizer", "lr", "epochs", "batch_size", "seed"),
        *("loader_workers", "checkpoint_minutes", "checkpoint_steps", "max_duration"),
    )
)

#: Pictures of one optimizer step, at most.
LARGEST_STEP = 65_536

#: A batch size that is decided when the job is submitted.
AUTO = "auto"

#: Pictures that each of several devices has of a batch, at least.
LEAST_SHARE = 2

#: What the names of torchvision's data sets begin with.
TORCHVISION = "torchvision:"

_TORCHVISION_SETS: dict[str, dict[str, object]] = {
    "CIFAR10": {"image_size": 32, "crop_padding": 4},
    "CIFAR100": {"image_size": 32, "crop_padding": 4},
    "SVHN": {"image_size": 32, "flip": False, "crop_scale": (0.8, 1.0)},
    "FashionMNIST": {"image_size": 28, "crop_scale": (0.8, 1.0)},
    "MNIST": {"image_size": 28, "flip": False, "crop_scale": (0.8, 1.0)},
    "Flowers102": {},
    "OxfordIIITPet": {},
    "Food101": {},
    "Imagenette": {},
}

#: Data sources with a name, and the fields that each presets.
DATA_PRESETS: dict[str, dict[str, object]] = {
    "cats_and_dogs": {},
    # A mirrored digit is none, and neither is a tenth of one.
    "digits": {"image_size": 32, "flip": False, "crop_scale": (0.8, 1.0)},
    **{f"{TORCHVISION}{name}": fields for name, fields in _TORCHVISION_SETS.items()},
}

_SHA256 = re.compile(r"[0-9a-f]{64}")
_Fraction = Annotated[float, Field(gt=0, le=1)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Channels = tuple[float, float, float]
_PositiveChannels = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


#: What the classifier does not see that learns alone: how pictures are augmented, and what is dropped before it.
_UNSEEN_BY_HEAD = (
    "crop_scale",
    "crop_padding",
    "flip",
    "randaugment",
    "mixup",
    "cutmix",
    "progressive_sizes",
    "dropout",
)

#: How many of a job's checkpoints stay.
Keep = int | Literal["all"]

#: Part of the network that learns.
Part = Literal["all", "last-block", "head"]


class JobSpec(BaseModel):
    """A training job, whole and immutable.

    Precedence of values: given, then what the names of network, data and weights stand for, then the defaults.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    data: str = Field(
        "cats_and_dogs", min_length=1, description="data set: a name, an http(s) URL, file:…, or a folder"
    )
    data_sha256: str | None = Field(None, description="sha256 that the downloaded archive must have")

    network: str = Field("densenet121", description="network by name, as `orch models` lists them")
    growth_rate: int = Field(32, ge=1, le=256, description="channels that each layer adds")
    blocks: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (6, 12, 24, 16), min_length=1, max_length=8, description="layers of each dense block"
    )
    reduction: _Fraction = Field(0.5, description="share of channels that a transition keeps")
    stem: networks.Stem = Field("cifar", description="cifar: 3x3 convolution; imagenet: 7x7 and max-pool")
    stem_channels: int | None = Field(None, ge=1, le=1024, description="channels of the stem; else two growth rates")
    bottleneck: int = Field(4, ge=0, le=64, description="growth rates in a layer's bottleneck; 0: none")
    transition_relu: bool = Field(default=False, description="ReLU in transitions, as in torchvision")
    dropout: float = Field(0.0, ge=0, lt=1, description="share dropped behind each convolution but the first")

    weights: str | None = Field(
        None,
        max_length=4096,
        description="weights to start from: imagenet, a .safetensors or .pth file, or a job: its best checkpoint",
    )
    weights_sha256: str | None = Field(None, description="sha256 that the file of weights must have")
    train: Part = Field(
        "all",
        description="what learns: all, last-block, or head: the classifier alone, on features computed once for each "
        "picture, without augmentation; the rest keeps its weights and BatchNorm statistics",
    )
    head_epochs: int = Field(
        0, ge=0, le=100_000, description="epochs in which the head learns alone, before the others"
    )
    head_lr: float | None = Field(None, gt=0, le=10, description="learning rate of these epochs; else lr")

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
        description="compat: pictures resized by Pillow, to the notebook's bits; fast: by torch, in half the time and "
        "within one of 255 levels",
    )
    mean: _Channels = Field((0.490, 0.449, 0.411), description="mean of each channel")
    std: _PositiveChannels = Field((0.231, 0.221, 0.230), description="deviation of each channel")

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="adam, adamw or sgd")
    lr: float = Field(1e-4, gt=0, le=10, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=False, description="Nesterov's form of sgd's momentum")
    weight_decay: float = Field(
        0, ge=0, le=1, description="weight decay; adamw's is decoupled, others' is in gradients"
    )
    decay_norm: bool = Field(default=False, description="decay BatchNorm's parameters and the biases as well")
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = Field(
        "constant", description="course of the learning rate: constant, step, cosine or one-cycle"
    )
    lr_steps: tuple[_Share, ...] = Field(
        (0.5, 0.75), max_length=16, description="step: shares of the training at which the rate falls"
    )
    lr_gamma: _Fraction = Field(0.1, description="step: factor by which it falls")
    lr_end: float = Field(0, ge=0, le=10, description="cosine: learning rate at the end")
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
        description="pictures in a batch, BatchNorm needs two; or auto: a power of two, as large as the memory of this "
        "host's CPUs allows, chosen when the job is submitted; neither lr nor accumulate follows it",
    )
    label_smoothing: float = Field(0, ge=0, lt=1, description="share of each label that is spread over all classes")
    ema: float = Field(
        0, ge=0, lt=1, description="decay of a running average of the weights, which is measured and used; 0: none"
    )
    patience: int | None = Field(
        None, ge=1, description="end, as succeeded, after so many epochs in a row that validate no better"
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
        description="what backward keeps: plain: all; balanced: a third; lean: a twentieth, and the rest is redone",
    )
    layout: Literal["contiguous", "channels_last", "auto"] = Field(
        "contiguous",
        description="how pictures lie in memory: contiguous, channels_last, or auto: what is faster at the first step",
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32", description="fp32, or mixed with bf16 or fp16; auto: what the device is fast at; measured in fp32"
    )
    compile: bool = Field(
        default=False,
        description="compile the training pass by torch.compile before the first step, minutes on a CPU; where that "
        "fails it trains without, and an event says why; for one device, memory plain and a network that all learns",
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
    max_duration: float | None = Field(None, gt=0, description="hours of running after which the job is failed")
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

    @model_validator(mode="before")
    @classmethod
    def _fill_presets(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**presets(given), **given}

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        if name not in networks.NETWORKS:
            raise ValueError(f"unknown network {masking.value(name)}{nearest(name, networks.NETWORKS)}")
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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        least = networks.smallest_image(self.shape)
        if self.image_size < least:
            raise ValueError(
                f"image_size {self.image_size} is too small: {len(self.blocks)} blocks with the "
                f"{self.stem} stem need at least {least} pixels"
            )
        if not networks.keeps_channels(self.shape):
            raise ValueError(f"reduction {self.reduction:g} leaves no channel after a transition")
        low, high = self.crop_scale
        if low > high:
            raise ValueError("crop_scale is (smallest, largest)")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights == weights.IMAGENET and weights.imagenet_file(self.shape) is None:
            raise ValueError(f"weights imagenet are for {', '.join(weights.IMAGENET_FILES)}, and for no other network")
        if self.weights_sha256 is not None and not weights.is_file(self.weights):
            raise ValueError("weights_sha256 is for weights of a file")
        return self

    @model_validator(mode="after")
    def _parts_can_learn(self) -> Self:
        if self.weights is None and (self.train != "all" or self.head_epochs):
            given = f"train {self.train}" if self.train != "all" else f"head_epochs {self.head_epochs}"
            raise ValueError(f"{given} needs weights: what does not learn would stay as it was drawn at random")
        if self.head_epochs and self.train == "head":
            raise ValueError("head_epochs come before other epochs, and with train head there are none")
        if self.head_epochs >= self.epochs and self.head_epochs:
            raise ValueError(f"head_epochs {self.head_epochs} leaves nothing of {self.epochs} epochs")
        if self.head_lr is not None and not self.head_epochs:
            raise ValueError("head_lr is for head_epochs")
        return self

    @model_validator(mode="after")
    def _sizes_rise_to_the_last(self) -> Self:
        sizes, until = self.progressive_sizes, self.progressive_until
        if len(sizes) != len(until):
            raise ValueError(f"progressive_sizes has {len(sizes)} sizes, progressive_until {len(until)} shares")
        if list(until) != sorted(set(until)):
            raise ValueError("progressive_until must rise")
        least = networks.smallest_image(self.shape)
        if sizes and min(sizes) < least:
            raise ValueError(f"progressive_sizes has {min(sizes)}: the network needs at least {least} pixels")
        return self

    @model_validator(mode="after")
    def _steps_can_be_made(self) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov is a form of sgd's momentum: it needs optimizer sgd and a momentum")
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise ValueError("lr_steps must rise")
        if self.schedule == "cosine" and self.lr_end > self.lr:
            raise ValueError(f"lr_end {self.lr_end:g} is above the learning rate {self.lr:g}")
        if self.warmup_epochs >= self.epochs - self.head_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} leaves nothing of {self.epochs - self.head_epochs} epochs"
            )
        if self.step_size > LARGEST_STEP:
            raise ValueError(f"{self.accumulate} batches of {self.batch_size} make more than {LARGEST_STEP:,} pictures")
        return self

    @model_validator(mode="after")
    def _devices_have_pictures(self) -> Self:
        if self.gpus > 1 and self.batch_size < LEAST_SHARE * self.gpus:
            raise ValueError(
                f"batch_size {self.batch_size} is for all {self.gpus} gpus together, and each needs {LEAST_SHARE} "
                f"pictures of it: at least {LEAST_SHARE * self.gpus}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_compiled(self) -> Self:
        needs = {
            f"gpus {self.gpus}": self.gpus == 1,
            f"memory {self.memory}": self.memory == "plain",
            f"train {self.train}": self.train == "all",
            f"head_epochs {self.head_epochs}": not self.head_epochs,
        }
        if self.compile and not all(needs.values()):
            against = next(name for name, holds in needs.items() if not holds)
            raise ValueError(
                f"compile is for one device, memory plain and a network that all learns, not for {against}"
            )
        return self

    def learning(self, epoch: int) -> Part:
        """Return what learns in an epoch, counted from 0."""
        return "head" if epoch < self.head_epochs else self.train

    @property
    def shape(self) -> networks.Shape:
        """The numbers that make the network."""
        return networks.Shape(**{name: getattr(self, name) for name in networks.FIELDS})

    @property
    def resize(self) -> int:
        """Shorter side in pixels before the centre crop of validation: 256 for 224, as in the notebook."""
        return int(self.image_size / self.val_crop)

    @property
    def step_size(self) -> int:
        """Pictures of one optimizer step."""
        return self.batch_size * self.accumulate

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed in pairs, each with the one before it in its step."""
        return self.mixup > 0 or self.cutmix > 0

    def train_size(self, epoch: int) -> int:
        """Return the side in pixels of the training pictures in `epoch`, which counts from 0."""
        for size, until in zip(self.progressive_sizes, self.progressive_until, strict=True):
            if epoch < round(until * self.epochs):
                return size
        return self.image_size

    def idle(self) -> dict[str, str]:
        """Return the fields that are set and do nothing, each with what it lacks."""
        lacks = {
            "optimizer sgd": () if self.optimizer == "sgd" else ("momentum",),
            "weight_decay": () if self.weight_decay else ("decay_norm",),
            "schedule step": () if self.schedule == "step" else ("lr_steps", "lr_gamma"),
            "schedule cosine": () if self.schedule == "cosine" else ("lr_end",),
            "randaugment": () if self.randaugment else ("randaugment_magnitude",),
            "patience": () if self.patience else ("patience_metric",),
            "crop_padding 0": ("crop_scale",) if self.crop_padding else (),
            "train all or last-block": _UNSEEN_BY_HEAD if self.train == "head" else (),
        }
        fields = type(self).model_fields
        return {
            name: what for what, names in lacks.items() for name in names if getattr(self, name) != fields[name].default
        }

    @property
    def courses(self) -> tuple[str, ...]:
        """What takes its course over the number of epochs: with another number the first ones are others, too."""
        course = () if self.schedule == "constant" else (f"schedule {self.schedule}",)
        return (*course, "progressive_sizes") if self.progressive_sizes else course

    def masked(self) -> Self:
        """Return the spec as it may be shown and kept in files: without the secrets in the URL of its data."""
        return self.model_copy(update={"data": masking.data(self.data)})

    def kept(self) -> dict[str, Any]:
        """Return the spec as checkpoints keep it, in JSON's types; `restored` reads it."""
        plain = {name for name, info in type(self).model_fields.items() if getattr(self, name) == info.default}
        return self.model_dump(mode="json", exclude=plain - FIRST_FIELDS)

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> Self:
        """Return the spec that was kept, by this version or an earlier one: what is missing has its default.

        Presets of names do not count: they may have grown since.
        """
        return cls.model_validate({name: info.default for name, info in cls.model_fields.items()} | dict(kept))

    def digest(self) -> str:
        """Return the sha256 of the spec in canonical JSON."""
        text = json.dumps(self.kept(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def extended(spec: JobSpec, epochs: int) -> JobSpec:
    """Return the spec with so many epochs in all; raises `InvalidSpec` where there cannot be so many."""
    return parse(spec.model_dump() | {"epochs": epochs})


def is_extension(later: JobSpec, earlier: JobSpec) -> bool:
    """Whether `later` is `earlier`, or that with more epochs: it goes on from what `earlier` has trained."""
    return earlier.epochs <= later.epochs and earlier.model_copy(update={"epochs": later.epochs}) == later


def presets(given: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields that the names of weights, data set and network in `given` stand for."""
    data, network = given.get("data"), given.get("network")
    filled: dict[str, object] = {}
    if given.get("weights") == weights.IMAGENET:
        filled |= weights.IMAGENET_FIELDS
    if isinstance(data, str):
        filled |= DATA_PRESETS.get(data, {})
    if isinstance(network, str):
        filled |= networks.NETWORKS.get(network, {})
    return filled


def least_batch(gpus: object) -> int:
    """Return the smallest batch for so many devices, as somebody wrote them: what is no number is judged elsewhere."""
    text = str(gpus)
    return LEAST_SHARE * (int(text) if text.isdecimal() else 1)


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """Return `: did you mean 'x'?` for the known word closest to `word`, or the list where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"


def parse(given: Mapping[str, Any]) -> JobSpec:
    """Return the spec that `given` describes.

    Raises:
        InvalidSpec: every fault of it in one message, unknown keys with the nearest known one.

    """
    try:
        return JobSpec.model_validate(dict(given))
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors(include_url=False, include_context=False)]
        raise errors.InvalidSpec(
            f"The job cannot be run: {faults[0]}",
            why="; ".join(faults[1:]) or None,
            hint="See `orch submit --help` for the fields and their ranges.",
        ) from error


def _fault(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {masking.value(name)}{nearest(name, list(JobSpec.model_fields))}"
    said = detail["msg"].removeprefix("Value error, ")
    said = said[0].lower() + said[1:]
    return f"{name} = {masking.value(detail['input'])}: {said}" if name else said
