"""The table of docs/settings.md, made from `orchestrator.config.Settings`."""

from pathlib import Path

from pydantic.fields import FieldInfo

from docs import markers
from orchestrator import config

PAGE = Path(__file__).with_name("settings.md")

#: Defaults that depend on the host, in words.
ELSEWHERE = {"home": "the user's data folder", "lock_dir": "/run/lock/orch, or /tmp/orch"}


def table() -> str:
    """Return the table in Markdown: variable, default, meaning."""
    rows = [
        f"| `{config.variable(name)}` | {_default(name, field)} | {field.description} |"
        for name, field in config.Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _default(name: str, field: FieldInfo) -> str:
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    return "unset" if field.default is None else f"`{field.default}`"


if __name__ == "__main__":
    markers.write("settings", table(), file=PAGE)
