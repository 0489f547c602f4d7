"""The systemd user unit that keeps a node running: as text, in systemd's way to write values and words."""

import re

from orchestrator import config
from orchestrator.service import node

#: What needs no quotes in a command line of systemd.
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")

#: What systemd reads between double quotes as something else than itself: systemd.syntax(7), systemd.unit(5).
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "%": "%%"})


def of_node(settings: config.Settings) -> str:
    """Return the unit; raises OrchError where the extra `worker` is not installed."""
    variables = config.child_environment(settings)
    chosen = {name: value for name, value in variables.items() if name.startswith(config.PREFIX)}
    hidden = {config.variable(name) for name in config.SECRETS}
    lines = [
        f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(chosen.items()) if name not in hidden
    ]
    lines += [f"# {name} is set and secret: put it into an EnvironmentFile." for name in sorted(hidden & set(chosen))]
    return "\n".join(
        [
            "[Unit]",
            "Description=orch node",
            "After=network-online.target",
            "",
            "[Service]",
            f"ExecStart={_command_line(node.command(node.ONLY_ONE))}",
            *lines,
            "Restart=on-failure",
            "KillMode=mixed",
            f"TimeoutStopSec={settings.drain + node.DRAIN_MARGIN:g}",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _command_line(command: list[str]) -> str:
    """Return a command as ExecStart takes it: variables are put into its arguments, but not into its first word."""
    program, *arguments = command
    return " ".join([_word(program), *(_word(argument.replace("$", "$$")) for argument in arguments)])


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
