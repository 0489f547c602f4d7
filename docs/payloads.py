"""The page of what `--json` prints, made from the models and from the commands that the golden files are of."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden import scene, shapes

PAGE = Path(__file__).with_name("json.md")

_HEAD = """# What `--json` prints

Each payload has a `schema_version`. It is raised when a field is renamed, removed or means something else; new fields
may come at any time. Times are ISO 8601 in UTC, durations seconds, sizes bytes, accuracies 0 to 1. A command prints one
document, or JSON Lines where that is said. `tests/golden/answers` has what each of these commands printed once, and
`make golden` writes it and this page anew."""

#: Those of which a command prints one a line.
_LINES = (
    "EventPayload",
    "JobPayload",
    "LogPayload",
    "PredictionPayload",
    "SamplePayload",
    "WorkerPayload",
    "DeletedPayload",
)


def page() -> str:
    """Return the page in Markdown: a section for each payload, then for each part of one."""
    payloads = shapes.payloads()
    schemas = {name: model.model_json_schema(mode="serialization") for name, model in sorted(payloads.items())}
    inside: dict[str, Mapping[str, Any]] = {}
    for name, node in (pair for schema in schemas.values() for pair in schema.get("$defs", {}).items()):
        if inside.setdefault(name, node) != node:
            raise ValueError(f"two different models are called {name}: a page has one section for it")
    parts = {name: node for name, node in sorted(inside.items()) if name.endswith("Part")}
    sections = [_section(name, node, inside) for name, node in (schemas | parts).items()]
    return "\n\n".join([_HEAD, *sections]) + "\n"


def _section(name: str, node: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    printed = (
        f"Printed{' a line each' if name in _LINES else ''} by {_commands(name)}." if name in _by_payload() else ""
    )
    rows = [
        f"| `{field}` | {_kind(inside, known)} | {inside.get('description', '')} |"
        for field, inside in node["properties"].items()
    ]
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])
    return "\n\n".join(filter(None, [f"## {name}", str(node["description"]), printed, table]))


def _commands(payload: str) -> str:
    return ", ".join(f"`{command}`" for command in _by_payload()[payload])


def _by_payload() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in scene.CASES.values():
        found.setdefault(case.payload.__name__, []).append(" ".join(["orch", *map(_named, case.words), "--json"]))
    return found


def _named(word: str) -> str:
    return "SET" if word == scene.DATA else "JOB" if re.fullmatch(r"\d{8}", word) else word


def _kind(node: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    return " or ".join(_kinds(node, known))


def _kinds(node: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name == shapes.SPEC.__name__:
        yield "object, as `orch schema job` has it"
    elif "enum" in known.get(name, node):
        yield ", ".join(f"`{value}`" for value in known.get(name, node)["enum"])
    elif name:
        yield f"[{name}](#{name.lower()})"
    elif "anyOf" in node:
        for choice in node["anyOf"]:
            yield from _kinds(choice, known)
    elif isinstance(node.get("items"), Mapping):
        yield f"array of {_kind(node['items'], known)}"
    elif isinstance(node.get("additionalProperties"), Mapping):
        yield f"object of {_kind(node['additionalProperties'], known)}"
    else:
        yield str(node.get("type", "any"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
