"""What was picked by measuring on this host, so that the next training like it does not measure again.

A file for each pick, named by a digest of everything that the measurement rests on: on another processor, or under
another torch, nothing is found. It is a help and no promise: what cannot be read is measured, what cannot be written is
measured again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping

from orchestrator import config, failpoints

#: Beside the host's data sets.
FOLDER = "picks"


class Pick:
    """One thing to pick; `rests_on` names all that decides which is best."""

    def __init__(self, settings: config.Settings, rests_on: Mapping[str, object]) -> None:
        self._rests_on = {name: str(value) for name, value in rests_on.items()}
        text = json.dumps(self._rests_on, sort_keys=True)
        self._file = settings.data_dir / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def recall(self) -> str | None:
        """Return what was picked under these very circumstances; None where nothing was, or it cannot be read."""
        try:
            failpoints.reach("pick.read")
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = isinstance(found, dict) and found.get("rests_on") == self._rests_on
        return str(found.get("picked")) if known else None

    def keep(self, picked: str) -> None:
        """Remember it, where that can be done."""
        draft = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            failpoints.reach("pick.write")
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"rests_on": self._rests_on, "picked": picked}, indent=1), encoding="utf-8")
            draft.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
