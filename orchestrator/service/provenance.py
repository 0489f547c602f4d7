"""The git commit that a job is submitted at, and what is not committed there: asked of git, which never fails a submit.

Git answers while the command goes on with its imports and its database: what it says is taken in at the end.
"""

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

from orchestrator import config, failpoints
from orchestrator.core import provenance
from orchestrator.service import jobfile

#: Bytes of a difference that are kept; of a larger one its size and digest.
LARGEST_DIFF = 2**20

#: Seconds that git has, from the beginning of a command; its answer is looked up last.
PATIENCE = 1.0

#: Without a lock on the index, a file monitor of the repository's choice, or anybody's own way to show differences.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "diff.relative=false")
_STATUS = ("status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no")
_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
_DIFF = ("diff", "--binary", *_PLAIN, "HEAD")

_PIECE = 2**16


class Asked:
    """Git, asked about a folder in two processes, which `answer` waits for and `close` ends."""

    def __init__(self, folder: Path, *, diff: bool) -> None:
        self._until = time.monotonic() + PATIENCE
        self._resources = ExitStack()
        self._remark: str | None = None
        self._diff: _Process | None = None
        self._status: _Process | None = None
        try:
            self._status = self._resources.enter_context(_Process(folder, _STATUS))
            if diff:
                self._diff = self._resources.enter_context(_Process(folder, _DIFF))
        except OSError as error:
            self._remark = f"git cannot be asked: {error.strerror}"

    def answer(self) -> provenance.Source:
        """Return what git knows of the folder, waiting until its time is over."""
        try:
            return self._answer()
        except subprocess.TimeoutExpired:
            return provenance.Source(remark=f"git did not answer within {PATIENCE:g} s")
        except OSError as error:
            return provenance.Source(remark=f"git cannot be heard: {error.strerror}")

    def _answer(self) -> provenance.Source:
        if self._remark is not None or self._status is None:
            return provenance.Source(remark=self._remark)
        said = self._status.said(self._until)
        if said is None:
            return provenance.Source(remark=self._status.complaint())
        found = provenance.commit_of(said.read().decode(errors="replace"))
        if self._diff is None or not found.dirty or found.commit is None:
            return found
        difference = self._diff.said(self._until)
        return replace(found, remark=self._diff.complaint()) if difference is None else _with_diff(found, difference)

    def close(self) -> None:
        """End what still runs."""
        self._resources.close()


class _Process:
    """One git; what it says goes to a file, so that nobody has to listen meanwhile."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        failpoints.reach("git.start")
        with ExitStack() as undo:
            self._out = undo.enter_context(tempfile.TemporaryFile())
            self._err = undo.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(  # noqa: S603 - git, as the user's own shell finds it
                [*_GIT, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err
            )
            self._files = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._files.close()

    def said(self, until: float) -> IO[bytes] | None:
        """Return what it has said, once it has ended; None where it failed."""
        if self._process.wait(max(0.0, until - time.monotonic())) != 0:
            return None
        failpoints.reach("git.read")
        self._out.seek(0)
        return self._out

    def complaint(self) -> str:
        """Return why it failed."""
        self._err.seek(0)
        lines = self._err.read(_PIECE).decode(errors="replace").strip().splitlines()
        return f"git: {lines[0]}" if lines else f"git ended with code {self._process.returncode}"


@contextmanager
def asked(settings: config.Settings, folder: Path) -> Iterator[Asked | None]:
    """Ask git about a folder, and yield what will know the answer; None where it is in no repository, or not wanted."""
    if settings.git == "off" or not _is_in_repository(folder):
        yield None
        return
    question = Asked(folder, diff=settings.git == "diff")
    try:
        yield question
    finally:
        question.close()


def _is_in_repository(folder: Path) -> bool:
    with suppress(PermissionError):  # git could not look there either
        return any((above / ".git").exists() for above in (folder, *folder.parents))
    return False


def known(origins: Mapping[str, str], question: Asked | None) -> provenance.Provenance:
    """Return where a job comes from: `origins` of the values of its spec, and git's answer."""
    chosen = {name: origin for name, origin in origins.items() if origin != jobfile.DEFAULT}
    return provenance.Provenance(origins=chosen, source=question.answer() if question else None)


def here(settings: config.Settings, origins: Mapping[str, str]) -> provenance.Provenance:
    """Return where a job comes from that is submitted in the working folder."""
    with asked(settings, Path.cwd()) as question:
        return known(origins, question)


def _with_diff(found: provenance.Source, said: IO[bytes]) -> provenance.Source:
    from orchestrator.core import diffs  # noqa: PLC0415 - patterns to compile, and most commits have no difference

    digest, kept, size = hashlib.sha256(), b"", 0
    while piece := said.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        kept = kept + piece if size <= LARGEST_DIFF else b""
    found = replace(found, diff_sha256=digest.hexdigest(), diff_bytes=size)
    if size > LARGEST_DIFF:
        return replace(found, remark=f"the difference is not kept: it has {size:,} bytes, over {LARGEST_DIFF:,}")
    text = kept.decode(errors="replace")
    shown, hidden = diffs.masked(text)
    remarks = [f"what looks like a secret is masked in {hidden} {'line' if hidden == 1 else 'lines'}"] if hidden else []
    if text.encode() != kept:
        remarks.append("bytes that are no text are replaced")
    return replace(found, diff=shown, remark="; ".join(remarks) or None)
