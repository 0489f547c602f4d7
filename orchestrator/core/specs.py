"""What to train: the job spec, whole. What each of its fields is by itself, `core.specfields` says."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, ValidationError, model_validator

from orchestrator import errors
from orchestrator.core import masking, networks, presets, specfields, spelling, weights

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


class JobSpec(specfields.SpecFields):
    """A training job, whole and immutable.

    Precedence of values: given, then what the names of network, data and weights stand for, then the defaults.
    """

    model_config = ConfigDict(defer_build=False)

    @model_validator(mode="before")
    @classmethod
    def _fill_presets(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**presets.fields(given), **given}

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
        }
        if self.compile and not all(needs.values()):
            against = next(name for name, holds in needs.items() if not holds)
            raise ValueError(
                f"compile is for one device, memory plain and a network that all learns, not for {against}"
            )
        return self

    def learning(self, epoch: int) -> specfields.Part:
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


def least_batch(gpus: object) -> int:
    """Return the smallest batch for so many devices, as somebody wrote them: what is no number is judged elsewhere."""
    text = str(gpus)
    return LEAST_SHARE * (int(text) if text.isdecimal() else 1)


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
        return f"unknown key {masking.value(name)}{spelling.nearest(name, list(JobSpec.model_fields))}"
    said = detail["msg"].removeprefix("Value error, ")
    said = said[0].lower() + said[1:]
    return f"{name} = {masking.value(detail['input'])}: {said}" if name else said
