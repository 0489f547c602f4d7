"""What Typer's help says of a command, put right: whole paragraphs, flags that take nothing, the line of usage."""

from typing import Any

import typer

#: The flags of help, of every command.
HELP_FLAGS = ["-h", "--help"]

#: Words to choose from that are longer together have no room in the column of types, and go into the sentence.
_ROOM = 20


def tidied(command: Any) -> Any:
    """Return a command, and all below it, whose help is put right."""
    command.help = _whole(command.help)
    _tell_flag(command.get_help_option(typer.Context(command, help_option_names=HELP_FLAGS)))
    for parameter in command.params:
        _tell_flag(parameter)
        _tell_choices(parameter)
        if parameter.param_type_name == "argument":
            parameter.metavar = parameter.metavar or parameter.name.upper()
            parameter.get_usage_pieces = _pieces(parameter)
            parameter.display_type_rich = _untyped  # its name and its sentence say what it is
    for member in getattr(command, "commands", {}).values():
        tidied(member)
    return command


def _whole(text: str | None) -> str | None:
    """Return text whose paragraphs are a line each, for the terminal to break: a docstring breaks them elsewhere."""
    if text is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _tell_flag(parameter: Any) -> None:
    """Leave out that a flag takes a bool: it takes nothing."""
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""


def _tell_choices(parameter: Any) -> None:
    described = parameter.type_descriptor
    words = [str(choice.value) for choice in described.choices or ()] if described.is_choice else []
    if parameter.metavar is None and len("|".join(words)) > _ROOM:
        parameter.metavar = parameter.name.upper()
        parameter.help = f"{parameter.help or ''} One of {', '.join(words)}.".strip()


def _untyped(ctx: Any) -> None:  # called with that name
    del ctx


def _pieces(argument: Any) -> Any:
    """Return what names an argument in the line of usage: JOB..., and [JOB...] where it may be left out."""
    piece = argument.metavar if argument.required else f"[{argument.metavar}]"
    return lambda _context: [piece]
