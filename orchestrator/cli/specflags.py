"""The flags of `submit`: one for each field of JobSpec, made from the model, so that there is one place for all."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer
from pydantic.fields import FieldInfo

from orchestrator.cli import options
from orchestrator.core import networks, specs

#: The panel of the help that a field stands under; all others are about training.
PANELS = {
    "Data": ("data", "data_sha256", "loader_workers"),
    "Pictures": (
        *("image_size", "crop_scale", "crop_padding", "val_crop", "flip", "randaugment", "randaugment_magnitude"),
        *("mixup", "cutmix", "progressive_sizes", "progressive_until", "pipeline", "mean", "std"),
    ),
    "Optimizer": (
        *("optimizer", "lr", "momentum", "nesterov", "weight_decay", "decay_norm", "clip_norm", "accumulate"),
        *("schedule", "lr_steps", "lr_gamma", "lr_end", "warmup_epochs"),
    ),
    "Network": ("network", *networks.FIELDS),
    "Checkpoints and retries": ("checkpoint_minutes", "checkpoint_steps", "keep", "max_duration", "retries"),
    "Speed and memory": ("memory", "layout", "precision", "compile"),
    options.PLACE: ("gpus", "preemptible"),
    "Start": ("weights", "weights_sha256", "train", "head_epochs", "head_lr"),
}
TRAINING = "Training"


def add(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field; those that were written arrive in its argument `fields`, as texts."""
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "fields"]
    flags = [_flag(name, info) for name, info in specs.JobSpec.model_fields.items()]

    def command(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in specs.JobSpec.model_fields}
        written = {name: value for name, value in values.items() if options.given(arguments["context"], name)}
        function(**arguments, fields={name: _value(name, value) for name, value in written.items()})

    options.present(command, function, [*own, *flags])
    return command


def written(fields: dict[str, Any]) -> list[str]:
    """Return the words of a command line that give these fields."""
    words: list[str] = []
    for name, value in fields.items():
        if isinstance(value, bool):
            words.append(_spelling(name) if value else f"--no-{_spelling(name)[2:]}")
        else:
            words += [_spelling(name), _as_text(value)]
    return words


def _flag(name: str, info: FieldInfo) -> inspect.Parameter:
    common: dict[str, Any] = {"help": _sentence(info.description or ""), "rich_help_panel": panel(name)}
    if info.annotation is bool:
        annotation: Any = Annotated[bool, typer.Option(f"{_spelling(name)}/--no-{_spelling(name)[2:]}", **common)]
        default: Any = info.default
    else:  # text: JobSpec judges it, so that flags and job files are told the same
        annotation = Annotated[str | None, typer.Option(_spelling(name), metavar=_metavar(info), **common)]
        default = None if info.default is None else _as_text(info.default)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _sentence(description: str) -> str:
    return f"{description[:1].upper()}{description[1:]}."


def panel(name: str) -> str:
    """Return the panel that a field stands under."""
    return next((panel for panel, names in PANELS.items() if name in names), TRAINING)


def _spelling(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _metavar(info: FieldInfo) -> str:
    if get_origin(info.annotation) is tuple:
        return "A,B,…"
    if get_origin(info.annotation) is dict:
        return "NAME=N,…"
    kind = str(info.annotation)
    return "N" if "int" in kind else "X" if "float" in kind else "TEXT"


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={count}" for name, count in value.items())
    return ",".join(str(item) for item in value) if isinstance(value, tuple | list) else str(value)


def _value(name: str, value: Any) -> Any:
    of_several = get_origin(specs.JobSpec.model_fields[name].annotation) is tuple
    if not of_several:
        return value
    return [part.strip() for part in value.split(",")] if value else []
