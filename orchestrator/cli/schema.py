"""`orch schema`."""

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

_EXAMPLES = """
Examples:

orch schema job

orch schema job > job.schema.json

Editors find it by the first line of a job file: `#:schema ./job.schema.json` in TOML,
`# yaml-language-server: $schema=./job.schema.json` in YAML.
"""


class What(StrEnum):
    """What has a schema."""

    JOB = "job"  #: a job file


@app.command(epilog=_EXAMPLES)
def schema(what: Annotated[What, typer.Argument(help="job: what a job file may say.")]) -> None:
    """Print the JSON Schema of job files, for editors."""
    del what  # there is one
    from orchestrator.service import jobfile

    sys.stdout.write(json.dumps(jobfile.schema(), indent=2, ensure_ascii=False) + "\n")
