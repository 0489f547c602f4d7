"""The golden files themselves: one for what each command prints, one for the shape of each payload."""

import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import config
from orchestrator.service import views
from orchestrator.store import sql
from tests.golden import scene, shapes

_FOLDER = Path(__file__).parent
ANSWERS, SHAPES = _FOLDER / "answers", _FOLDER / "shapes"


def answer(case: scene.Case, printed: list[Any]) -> dict[str, Any]:
    """Return the golden file of a command."""
    return {"command": f"orch {' '.join(case.words)} --json", "payload": case.payload.__name__, "printed": printed}


def models() -> dict[str, type[BaseModel]]:
    """Return everything that has a shape."""
    return {**shapes.payloads(), shapes.SPEC.__name__: shapes.SPEC}


def shape(model: type[BaseModel]) -> dict[str, Any]:
    """Return the golden file of a payload's shape."""
    return {"schema_version": views.SCHEMA_VERSION, "fields": shapes.shape(model)}


def read(folder: Path, name: str) -> Any:
    """Return what a golden file says, None where there is none."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def refused() -> list[str]:
    """Return which golden shapes would break without another `schema_version`."""
    return [
        f"{name}.{fault}" for name, model in models().items() for fault in _broken(read(SHAPES, name), shape(model))
    ]


def write() -> None:
    """Write them all anew."""
    made: dict[Path, Any] = {SHAPES / name: shape(model) for name, model in models().items()}
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        migrated = config.Settings(home=Path(folder) / "migrated")
        sql.open_store(migrated).close()
        with scene.scene(Path(folder), migrated.home / "orch.db") as printed:
            made |= {ANSWERS / name: answer(case, printed(case)) for name, case in scene.CASES.items()}
    for stale in {*ANSWERS.glob("*.json"), *SHAPES.glob("*.json")}:
        stale.unlink()
    for file, content in made.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        file.with_name(f"{file.name}.json").write_text(f"{text}\n", encoding="utf-8")


def _broken(before: Any, after: dict[str, Any]) -> list[str]:
    if before is None or before["schema_version"] != after["schema_version"]:
        return []
    return shapes.broken(before["fields"], after["fields"])
