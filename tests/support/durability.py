"""What a power cut would leave: the order in which files are written out and renamed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def recorded(monkeypatch: pytest.MonkeyPatch, below: Path) -> list[str]:
    """Return a list that fills with "fsync NAME" and "rename OLD NEW" as they happen below a folder, in order.

    Names are relative to the folder, which itself is ".".
    """
    happened: list[str] = []

    def note(word: str, *paths: Path) -> None:
        if all(path.is_relative_to(below) for path in paths):
            happened.append(" ".join([word, *(path.relative_to(below).as_posix() for path in paths)]))

    def fsync(descriptor: int) -> None:
        note("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())

    def renaming(real: Callable[..., None]) -> Callable[..., None]:
        def rename(old: Any, new: Any) -> None:
            note("rename", Path(old), Path(new))
            real(old, new)

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renaming(os.rename))
    monkeypatch.setattr(os, "replace", renaming(os.replace))
    return happened
