"""The shape of a payload: a type for the path of each field, and a line for each value of an enumeration."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from orchestrator.core import specs
from orchestrator.service import views

#: Its shape is its own golden file: what holds one names it.
SPEC = specs.JobSpec


def payloads() -> dict[str, type[views.Payload]]:
    """Return every payload by its name; all modules of views have to be imported."""
    return {model.__name__: model for model in _below(views.Payload)}


def shape(model: type[BaseModel]) -> dict[str, str]:
    """Return the shape of what a model prints."""
    schema = model.model_json_schema(mode="serialization")
    known = {name: node for name, node in schema.get("$defs", {}).items() if name != SPEC.__name__}
    return dict(sorted(_paths("", schema, known)))


def broken(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return what readers of an earlier shape miss in a later one; new fields and values do not harm them."""
    return [
        f"{path}: {kind} became {after.get(path, 'nothing')}"
        for path, kind in before.items()
        if after.get(path) != kind
    ]


def _below(model: type[views.Payload]) -> Iterator[type[views.Payload]]:
    for one in model.__subclasses__():
        yield one
        yield from _below(one)


def _paths(path: str, node: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name:
        yield from _paths(path, known[name], known) if name in known else [(path, name)]
        return
    choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    if choices:
        for found, kind in (pair for choice in choices for pair in _paths(path, choice, known)):
            yield found, f"{kind} or null" if found == path and len(choices) < len(node["anyOf"]) else kind
        return
    if path:
        yield path, str(node.get("type", "any"))
    for value in node.get("enum", ()):
        yield f"{path} = {value}", "value"
    for field, inside in node.get("properties", {}).items():
        yield from _paths(f"{path}.{field}".lstrip("."), inside, known)
    for index, inside in enumerate(node.get("prefixItems", ())):
        yield from _paths(f"{path}[{index}]", inside, known)
    for key, brackets in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), Mapping):
            yield from _paths(f"{path}{brackets}", node[key], known)
