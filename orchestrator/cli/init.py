"""`orch init`."""

import json
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import errors
from orchestrator.cli import render

app = typer.Typer(add_completion=False)

#: Fields that stand in the file without a # before them: what people change first.
FIRST = ("data", "network", "epochs", "batch_size", "lr")

_WIDTH = 100
_YAML = frozenset({".yaml", ".yml"})

_EXAMPLES = """
Examples:

orch init

orch init night.toml && orch submit night.toml --dry-run

orch init --yaml -
"""


@app.command(epilog=_EXAMPLES)
def init(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Where to write it; - prints it. Else job.toml or job.yaml.")
    ] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="Write YAML; a FILE ending in .yaml or .yml needs no flag.")] = (
        False
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it exists.")] = False,
) -> None:
    """Write a job file with every field at its default.

    What most jobs change is set in it; every other field stands behind a #, which you remove to set it.
    """
    as_yaml = yaml or (file is not None and Path(file).suffix.lower() in _YAML)
    path = Path(file or ("job.yaml" if as_yaml else "job.toml"))
    named = shlex.quote(str(path))
    if as_yaml and path.suffix.lower() == ".toml":
        better = shlex.quote(str(path.with_suffix(".yaml")))
        raise errors.UsageError(f"{path} would be read as TOML.", hint=f"orch init --yaml {better}")
    text = "\n".join(lines(str(path), as_yaml=as_yaml)) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        if path.is_dir():
            inside = path / ("job.yaml" if as_yaml else "job.toml")
            raise errors.UsageError(f"{path} is a folder.", hint=f"orch init {shlex.quote(str(inside))}")
        with path.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise errors.UsageError(f"{path} is there already.", hint=f"orch init --force {named}") from None
    except (OSError, ValueError) as error:
        why = f"{error.strerror}." if isinstance(error, OSError) else "No path has a NUL."
        raise errors.UsageError(f"{path} cannot be written.", why=why, hint="Give another path.") from error
    if render.mode() is render.Mode.PIPE:
        render.line(path)
    else:
        render.console().print(render.clean(f"wrote {path}"))
        render.following([f"orch submit --dry-run {named}", f"orch submit {named}"])


def lines(name: str, *, as_yaml: bool) -> Iterator[str]:
    """Yield the lines of a job file called `name`."""
    from orchestrator.cli import specflags
    from orchestrator.core import specs
    from orchestrator.service import jobfile

    file = "job.yaml" if name == "-" and as_yaml else "job.toml" if name == "-" else name
    file = shlex.quote(file) if file.isprintable() else "FILE"  # a comment ends with its line
    yield f"# A job of orch: `orch submit {file}` queues it, and flags win over what stands here."
    yield "# Every field has its default. Take the # from a line and it counts: it then also wins over what a recipe,"
    yield "# a network or a data set brings with its name."
    yield from _section("Queue")
    for key, schema in jobfile.QUEUE_KEYS.items():
        yield from _field(key, schema.get("default"), schema["description"], as_yaml=as_yaml)
    defaults = specs.JobSpec().model_dump(mode="json")
    for panel in (*specflags.PANELS, specflags.TRAINING):
        yield from _section(panel)
        for key, info in specs.JobSpec.model_fields.items():
            if specflags.panel(key) == panel:
                yield from _field(key, defaults[key], info.description or "", as_yaml=as_yaml)


def _section(title: str) -> Iterator[str]:
    yield ""
    yield f"# --- {title} ---"


def _field(key: str, value: Any, description: str, *, as_yaml: bool) -> Iterator[str]:
    """Yield what a field is for, and the field: JSON's spelling of these values is also TOML's and YAML's."""
    yield ""
    yield from (f"# {line}" for line in textwrap.wrap(description, _WIDTH))
    said = "" if value is None else f" {json.dumps(value)}"
    yield f"{'' if key in FIRST else '#'}{key}{':' if as_yaml else ' ='}{said}"
