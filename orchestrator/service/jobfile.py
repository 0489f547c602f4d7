"""Job files (TOML or YAML) and flags, merged into one spec whose every value knows where it comes from."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator import config, errors
from orchestrator.core import masking, networks, presets, resources, specs, spelling, weburl, weights
from orchestrator.core.jobs import MAX_NAME, MAX_PRIORITY
from orchestrator.core.telling import Occasion
from orchestrator.service import jobtext, recipes

#: Key of a job file that names the recipe it stands on.
RECIPE_KEY = "recipe"

#: Keys of a job file that say how to queue the job, not what to train, as JSON Schema.
QUEUE_KEYS: dict[str, dict[str, Any]] = {
    RECIPE_KEY: {
        "type": "string",
        "description": "a recipe, as `orch recipes` lists them; the file wins over it",
    },
    "name": {"type": "string", "maxLength": MAX_NAME, "description": "a name to find it by"},
    "tags": {
        "type": ["array", "string"],
        "items": {"type": "string", "maxLength": MAX_NAME},
        "default": [],
        "description": "tags, by which jobs are listed and steered together",
    },
    "priority": {
        "type": "integer",
        "default": 0,
        "minimum": -MAX_PRIORITY,
        "maximum": MAX_PRIORITY,
        "description": "each point is worth an hour of waiting, among your own jobs",
    },
    "device": {
        "type": "string",
        "description": "run only there: cpu, gpu, or a part of a GPU's name such as a100",
    },
    "gpu_memory": {
        "type": ["string", "integer"],
        "description": "memory that each GPU must have at least, such as 10GB, or in bytes",
    },
    "labels": {
        "type": ["array", "string"],
        "items": {"type": "string"},
        "default": [],
        "description": "labels that the worker must have, all of them",
    },
    "notify": {
        "type": ["array", "string"],
        "items": {"type": "string"},
        "description": "URLs that are told how the job ends: webhooks, or apprise's; [] tells nobody",
    },
    "notify_on": {
        "type": ["array", "string"],
        "items": {"enum": [occasion.value for occasion in Occasion]},
        "description": f"what they are told: {', '.join(Occasion)}",
    },
}

#: Flags of submit that say something of the one job, at the one moment: no file has them.
FLAGS_ALONE = ("after", "not_before", "user", "idempotency_key", "require_broker", "force", "wait", "follow")

#: Where a value comes from that nobody gave.
DEFAULT = "default"

#: What begins a whole path, or the URL of one: the worker judges it.
_SOURCE = re.compile(r"file:/|/", re.IGNORECASE)
_WEB = re.compile(r"https?:", re.IGNORECASE)

#: Endings of files of weights: no job is meant by such a word.
_WEIGHT_FILES = (".safetensors", ".pth", ".pt")

_HINT = jobtext.HINT

#: Fields, and where they come from.
_Layer = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """What a job file says. `fields` are the spec's."""

    origin: str
    fields: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    tags: tuple[str, ...] = ()
    priority: int | None = None
    device: str | None = None
    gpu_memory: str | int | None = None
    labels: tuple[str, ...] = ()
    notify: tuple[str, ...] | None = None
    notify_on: tuple[str, ...] | None = None
    recipe: str | None = None

    def demand(
        self, *, device: str | None = None, gpu_memory: str | None = None, labels: Iterable[str] | None = None
    ) -> resources.Demand:
        """Return what the job demands of its worker: what is given here, and for the rest what the file says.

        Raises:
            InvalidSpec: it can be no demand.

        """
        return resources.parse(
            device=self.device if device is None else device,
            gpu_memory=self.gpu_memory if gpu_memory is None else gpu_memory,
            labels=self.labels if labels is None else labels,
        )


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A spec and, for each of its fields, where the value comes from."""

    spec: specs.JobSpec
    origins: dict[str, str]


def load(path: Path) -> JobFile:
    """Read the job file at `path`; raises InvalidSpec where it is none."""
    try:
        content = jobtext.content(path)
    except (OSError, ValueError) as error:
        why = f"{error.strerror}." if isinstance(error, OSError) else "No path has a NUL."
        raise errors.InvalidSpec(
            f"The job file {path} cannot be read.",
            why=why,
            hint="Give the path of a TOML or YAML file, or - for stdin.",
        ) from error
    return parse(content, origin=str(path))


def parse(content: bytes, *, origin: str) -> JobFile:
    """Return what a job file of this content says; raises InvalidSpec where it is none."""
    if len(content) > jobtext.MAX_BYTES:
        raise errors.InvalidSpec(
            f"{origin} is no job file.", why=f"It is larger than {jobtext.MAX_BYTES // 1000} kB.", hint=_HINT
        )
    try:
        text = content.decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise errors.InvalidSpec(f"{origin} is no job file.", why="It is not text in UTF-8.", hint=_HINT) from error
    values = jobtext.table(text, origin)
    for key in values:
        _require_key(key, origin)
    return JobFile(
        origin=origin,
        fields={key: value for key, value in values.items() if key in specs.JobSpec.model_fields},
        name=_text(values, "name", origin),
        tags=_texts(values, "tags", origin) or (),
        priority=_priority(values.get("priority"), origin),
        device=_text(values, "device", origin),
        gpu_memory=values.get("gpu_memory"),
        labels=_texts(values, "labels", origin) or (),
        notify=_texts(values, "notify", origin),
        notify_on=_texts(values, "notify_on", origin),
        recipe=_text(values, RECIPE_KEY, origin),
    )


def _require_key(key: object, origin: str) -> None:
    """Raise InvalidSpec for what is no key of a job file."""
    known = [*specs.JobSpec.model_fields, *QUEUE_KEYS]
    if key in known:
        return
    if key in FLAGS_ALONE:
        flag = f"--{str(key).replace('_', '-')}"
        raise errors.InvalidSpec(
            f"{origin}: {key} is no key of a job file: it is a flag alone",
            why="It is about one job at one moment; a file is for many.",
            hint=f"orch submit FILE {flag}",
        )
    meant = spelling.close(str(key), known)
    nearest = f": did you mean {meant!r}?" if meant else ""
    raise errors.InvalidSpec(f"{origin}: unknown key {masking.value(key)}{nearest}", hint=_HINT)


def resolve(
    *,
    flags: Mapping[str, Any],
    file: JobFile | None = None,
    recipe: str | None = None,
    settings: config.Settings | None = None,
) -> Resolved:
    """Return the spec that flags over the job file over the recipe over presets over defaults make.

    `recipe` is a name, and wins over the job file's. A relative path of data is taken from the working folder. The
    `settings` say where jobs train: without them nothing can be `auto` that rests on that.

    Raises:
        InvalidSpec: it cannot be run, asks for something in vain, or its data is nothing that orch knows or finds.

    """
    layers: list[_Layer] = [("flag", flags)]  # the strongest first; a file may be called flag, too
    if file is not None:
        layers.append((file.origin, file.fields))
        recipe = file.recipe if recipe is None else recipe
    asked = [name for _, fields in layers for name in fields]
    if recipe is not None:
        layers.append((f"recipe {recipe}", recipes.load(recipe).fields))
    given = _found({name: value for _, fields in reversed(layers) for name, value in fields.items()})
    decided: dict[str, str] = {}
    if settings is not None and given.get("batch_size") == specs.AUTO:
        from orchestrator.service import batches  # noqa: PLC0415 - seldom asked for, and it brings the store along

        least = specs.parse(given | {"batch_size": specs.least_batch(given.get("gpus", 1))})
        given["batch_size"], decided["batch_size"] = batches.largest(least, settings)
    spec = specs.parse(given)
    _refuse_idle(spec, asked)
    origins = {name: _origin(name, layers, given) for name in specs.JobSpec.model_fields}
    return Resolved(
        spec=spec, origins=origins | {name: f"{origins[name]}, auto: {why}" for name, why in decided.items()}
    )


def placed(spec: specs.JobSpec) -> specs.JobSpec:
    """Return a spec that a program has made, its data found and the path of that made whole, as `resolve` does.

    Raises:
        InvalidSpec: its data or weights are nothing that orch knows or finds.

    """
    return specs.parse(_found(dict(spec)))


def _found(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the paths of data and weights made whole."""
    whole: dict[str, Callable[[str], str]] = {"data": data_source, "weights": _weights}
    texts = {name: given[name] for name in whole if isinstance(given.get(name), str)}
    return given | {name: whole[name](text) for name, text in texts.items()}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors of TOML and YAML."""
    of_spec = specs.JobSpec.model_json_schema()
    properties = QUEUE_KEYS | of_spec.pop("properties")
    properties["network"] = properties["network"] | {"enum": list(networks.NETWORKS)}
    number = {name: properties["batch_size"].pop(name) for name in ("type", "minimum", "maximum")}
    properties["batch_size"]["anyOf"] = [number, {"const": specs.AUTO}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **of_spec,
        "title": "A job of orch",
        "description": "What `orch submit FILE` queues. Whatever is left out has its default.",
        "properties": properties,
    }


def _refuse_idle(spec: specs.JobSpec, asked: Iterable[str]) -> None:
    """Raise InvalidSpec where something that was asked for would do nothing; a recipe may say more than is used."""
    idle = spec.idle()
    for name in asked:
        if name in idle:
            raise errors.InvalidSpec(
                f"The job cannot be run: {name} would do nothing without {idle[name]}",
                hint="Leave it out, or set both.",
            )


def data_source(data: str) -> str:
    """Return `data` with the path of a folder or archive made whole: workers do not run where people stand.

    Raises InvalidSpec for what names no data.
    """
    if _WEB.match(data):
        if (why := weburl.fault(data)) is not None:
            raise errors.InvalidSpec(
                f"{masking.value(data)} is no URL that can be downloaded.", why=why, hint=weburl.HINT
            )
        return data
    if not data or data in presets.DATA or _SOURCE.match(data):
        return data
    try:
        path = Path(data).expanduser()
        found = path.is_absolute() or path.exists()
    except (OSError, RuntimeError, ValueError):  # longer than any name, ~ of a user who is not, a NUL
        found = False
    if not found:
        raise errors.InvalidSpec(
            f"There is no data set {masking.value(data)}{spelling.nearest(data, presets.DATA)}",
            why="It is neither a known name, nor an http(s) URL, nor a folder or archive here.",
            hint="Give a URL, or the path of a folder or zip archive.",
        )
    return str(path.absolute())


def local_path(data: str) -> Path | None:
    """Return where local data lies; None for what has a name or is from the web, of which each host keeps one copy."""
    if data.lower().startswith("file:"):
        return Path(unquote(urlsplit(data).path))
    return Path(data) if data.startswith("/") else None


def _weights(text: str) -> str:
    """Return the weights, with the path of a file made whole; what is neither a known word nor a path is a job."""
    if text == weights.IMAGENET or weights.job(text):
        return text
    try:
        path = Path(text).expanduser()
        found = path.is_absolute() or path.is_file()
    except (OSError, RuntimeError, ValueError):
        found = False
    if found:
        return str(path.absolute())
    if not text.strip() or "/" in text or text.endswith(_WEIGHT_FILES):
        raise errors.InvalidSpec(
            f"There are no weights {masking.value(text)}.",
            why="It is neither imagenet, nor a file here, nor a job.",
            hint="Give the path of a .safetensors or .pth file, or the id or name of a job.",
        )
    return weights.JOB + text


def _origin(name: str, layers: Iterable[_Layer], given: Mapping[str, Any]) -> str:
    for origin, fields in layers:
        if name in fields:
            return origin
    for key in ("network", "data", "weights"):  # the stronger preset first, as in presets.fields
        if key in given and name in presets.fields({key: given[key]}):
            return f"{key} {given[key]}"
    return DEFAULT


def _text(values: Mapping[str, Any], key: str, origin: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise errors.InvalidSpec(f"{origin}: {key} = {masking.value(value)}: a {key} is text", hint=_HINT)
    return value


def _texts(values: Mapping[str, Any], key: str, origin: str) -> tuple[str, ...] | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise errors.InvalidSpec(f"{origin}: {key} = {masking.value(value)}: {key} are a list of text", hint=_HINT)
    return tuple(value)


def _priority(value: Any, origin: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise errors.InvalidSpec(
            f"{origin}: priority = {masking.value(value)}: a priority is a whole number", hint=_HINT
        )
    return value
