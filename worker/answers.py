"""Between a command and a process that knows what the command line must not import: one request, lines of answers.

The request is JSON on standard input, each answer a line of JSON on standard output; whatever else libraries say goes
to standard error. Exit code: 0 where everything was answered, with what is wrong perhaps, 2 where the request cannot be
met: then the last line says why. Any other is that of a process which failed, such as Python's 1.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import errors

EXIT_REFUSED = 2

Answer = dict[str, Any]
Say = Callable[[Answer], None]


class Request(BaseModel):
    """What a command asks."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Asked = TypeVar("Asked", bound=Request)


def serve(kind: type[Asked], work: Callable[[Asked, Say], None]) -> int:
    """Let `work` answer the request on standard input, and return the exit code."""
    said = sys.stdout

    def say(answer: Answer) -> None:
        said.write(json.dumps(answer) + "\n")
        said.flush()

    try:
        with contextlib.redirect_stdout(sys.stderr):
            # Not pydantic's own reading, which refuses the names of files that are no UTF-8.
            work(kind.model_validate(json.loads(sys.stdin.buffer.read())), say)
    except (ValidationError, json.JSONDecodeError) as error:
        say({"refused": {"message": f"The request cannot be read: {error}"}})
    except errors.OrchError as error:
        say({"refused": {"message": error.message, "why": error.why, "hint": error.hint}})
    else:
        return 0
    return EXIT_REFUSED
