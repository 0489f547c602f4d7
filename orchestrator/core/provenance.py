"""Where a job's result comes from: the source it was submitted at, and what its attempts ran on. Pure rules.

A job is data, and its training depends on no file of the working folder: the commit says what its owner was at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Versions that may change a result: the others that an environment names are only told.
DECISIVE = ("orch", "python", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The working folder that a job was submitted in, as git had it. None is what is not known; `remark` says why."""

    commit: str | None = None
    branch: str | None = None  #: None also for a detached head
    dirty: bool | None = None  #: whether tracked files differed from the commit
    diff: str | None = None  #: how they did, for `git apply`, secrets masked
    diff_sha256: str | None = None  #: of the difference as git wrote it
    diff_bytes: int | None = None  #: size of that
    remark: str | None = None  #: what is missing, or not as git wrote it


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What an attempt trained with, from its first step on."""

    versions: dict[str, str]  #: by the names of the packages, Python among them
    device: str  #: cpu, or the GPU's model
    cpu: str  #: the processor's model
    instructions: str  #: the instruction set that torch's kernels use
    threads: int  #: of the CPU
    layout: str
    precision: str
    seed: int
    compiled: bool = False  #: whether the training pass was
    code: str = ""  #: which machine code of orch's own it was computed by, where it was
    tf32: bool = False  #: whether a GPU may compute fp32 with ten bits of the fraction
    cudnn_benchmark: bool = False  #: whether cuDNN tries its convolutions for each shape


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is known of where a job comes from."""

    origins: Mapping[str, str] = field(default_factory=dict)  #: of the spec's values that are no defaults
    source: Source | None = None


UNKNOWN = Provenance()


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return which decisive versions differ, each as `name: here, there`; one that a side does not know never does."""
    known = [name for name in DECISIVE if name in here and name in there]
    return [f"{name}: {here[name]}, {there[name]}" for name in known if here[name] != there[name]]


def commit_of(status: str) -> Source:
    """Return the source of what `git status --porcelain=v2 --branch` has said: without a difference yet.

    https://git-scm.com/docs/git-status#_porcelain_format_version_2
    """
    said = dict(line.removeprefix("# branch.").split(" ", 1) for line in status.splitlines() if line.startswith("# "))
    commit, branch = said.get("oid"), said.get("head")
    return Source(
        commit=None if commit == "(initial)" else commit,
        branch=None if branch == "(detached)" else branch,
        dirty=any(line and not line.startswith("#") for line in status.splitlines()),
    )
