"""Ids for the shell's completion: straight from the embedded database, quickly, and nothing on any error."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import platformdirs

_NEWEST = "SELECT id, coalesce(name, ''), state FROM jobs WHERE id LIKE ? || '%' ORDER BY seq DESC LIMIT 50"


def jobs(home: Path | None, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (id, what it is) of the newest jobs whose id begins with `prefix`."""
    try:
        file = (home or platformdirs.user_data_path("orch")) / "orch.db"
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.05)
    except (sqlite3.Error, OSError, RuntimeError):
        return
    try:
        for job_id, name, state in connection.execute(_NEWEST, (prefix,)).fetchall():
            yield job_id, f"{state} {name}".strip()
    except sqlite3.Error:
        return
    finally:
        connection.close()
