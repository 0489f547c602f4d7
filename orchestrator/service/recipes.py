"""Recipes: ways to train, each a job file in the package that is named instead of its values."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from orchestrator import errors
from orchestrator.core import masking, spelling

_FOLDER = resources.files("orchestrator") / "recipes"
_ENDING = ".toml"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: what it is for, its file's text, and the fields of a job that this gives."""

    name: str
    summary: str
    text: str
    fields: dict[str, Any]


def names() -> list[str]:
    """Return the names of all recipes, in order."""
    return sorted(file.name.removesuffix(_ENDING) for file in _FOLDER.iterdir() if file.name.endswith(_ENDING))


def load(name: str) -> Recipe:
    """Return the recipe of that name; raises InvalidSpec where there is none."""
    known = names()
    if name not in known:
        raise errors.InvalidSpec(
            f"There is no recipe {masking.value(name)}{spelling.nearest(name, known)}",
            hint="`orch recipes` lists them; your own is a job file: `orch submit FILE`.",
        )
    text = (_FOLDER / f"{name}{_ENDING}").read_text(encoding="utf-8")
    summary = text.partition("\n")[0].removeprefix("# ")
    return Recipe(name=name, summary=summary, text=text, fields=tomllib.loads(text))
