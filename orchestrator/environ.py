"""The variables of this process's environment: the one file that reads and sets them."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Variables of ours that are no settings: tests and benchmarks read them.
OF_TESTS = frozenset({"ORCH_TEST_FAILPOINTS", "ORCH_TEST_PHOTOS", "ORCH_TEST_POSTGRES_URL"})


def variables() -> Mapping[str, str]:
    """Return all of them."""
    return os.environ


def visible_gpus() -> str | None:
    """Return the inherited CUDA_VISIBLE_DEVICES, None where it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def talk_on_loopback() -> None:
    """Let gloo and NCCL, by which ranks of a training talk, listen on this host alone; they would go by its network."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def keep_compiled(folder: Path) -> None:
    """Let torch.compile keep what it makes in a folder, and compile in this process: it would leave others behind."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


def compiler() -> list[str]:
    """Return the command of this host's C++ compiler: CXX, of several words where it has them, as make takes it."""
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


def look_for_no_plugins() -> None:
    """Keep pydantic from reading the metadata of every installed package for plugins, unless its variable is set."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def set_visible_gpus(uuids: Sequence[str]) -> None:
    """Set CUDA_VISIBLE_DEVICES of this process; torch reads it at its first CUDA call."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)


def of_tests(name: str) -> str | None:
    """Return one of the variables that tests and benchmarks go by."""
    if name not in OF_TESTS:
        raise KeyError(name)
    return os.environ.get(name)
