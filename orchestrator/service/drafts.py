"""Files that a person asked for: whole under their names, or not there at all."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from orchestrator import errors


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """Look at where a file is to lie; raises UsageError where that cannot be done."""
    try:
        yield
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise errors.UsageError("The file cannot be written.", why=str(error), hint="Give another -o.") from error


@contextlib.contextmanager
def drafts(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yield a draft beside each path; at the end they get these names, the first one last: where it is, all are.

    Nothing is left of what fails; raises OrchError where it is the disk that does.
    """
    made = tuple(path.absolute().with_name(f".{secrets.token_hex(8)}{path.suffix}") for path in paths)
    try:
        yield made
        for draft, path in reversed(list(zip(made, paths, strict=True))):
            draft.replace(path)
    except OSError as error:
        raise errors.OrchError(f"{paths[0]} cannot be written.", why=error.strerror or str(error)) from error
    finally:
        for draft in made:
            with contextlib.suppress(OSError):  # what failed before is what is to be told
                draft.unlink(missing_ok=True)
