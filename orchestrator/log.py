"""Log lines are events: a constant sentence and fields (`job`, `attempt`, `worker`), on stderr."""

import contextlib
import logging
import sys
from typing import Any, TextIO, cast

import structlog


class _Stderr:
    """Standard error that never fails: a full disk, or a reader that has gone, must not end the work."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(*, debug: bool = False) -> None:
    """Send log lines to stderr: aligned for people on a terminal, JSON elsewhere."""
    for_people = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not for_people),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> Any:
    """Return a logger; `name` says which part of orch speaks."""
    return structlog.get_logger(part=name)  # which reads the configuration when it is first used
