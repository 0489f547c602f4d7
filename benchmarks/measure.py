"""How two ways of doing one thing are compared: in turns, in fresh processes, by the median of their ratios."""

import argparse
import math
import os
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from docs import markers

PAIRS = 5

#: Seconds, or those of several parts.
_Taken = TypeVar("_Taken")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table: what orch takes and what its peer takes, measurement by measurement."""

    id: str
    what: str
    peer: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    reach: float  #: the largest ratio that is good enough
    shown: Callable[[float], str] = lambda value: seconds(value)  # noqa: PLW0108 - which stands below

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours through theirs, pair by pair."""
        return tuple(our / their for our, their in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def row(self) -> str:
        """Return the line in Markdown."""
        spread = f"{min(self.ratios):.2f}-{max(self.ratios):.2f}"
        ratio = "**never**" if math.isinf(self.ratio) else f"**{self.ratio:.2f}** ({spread})"
        cells = [
            self.id,
            self.what,
            self.shown(statistics.median(self.ours)),
            self.peer,
            self.shown(statistics.median(self.theirs)),
            ratio,
            f"{self.reach:.2f}",
        ]
        return f"| {' | '.join(cells)} |"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table in Markdown."""
    header = "| | orch | takes | peer | takes | ratio (range) | to reach |\n|---|---|---|---|---|---|---|"
    return "\n".join([header, *(figure.row() for figure in figures)])


def replaced(text: str, figures: Sequence[Figure]) -> str:
    """Return a text that begins with such a table, where the lines with the ids of these figures are theirs."""
    lines, _, rest = text.partition("\n\n")
    header, rule, *rows = lines.splitlines()
    ids = {figure.id for figure in figures}
    rows = [row for row in rows if _id(row) not in ids] + [figure.row() for figure in figures]
    rows.sort(key=lambda row: int(_id(row).removeprefix("P")))
    return "\n".join([header, rule, *rows, "", rest])


def command(name: str, figures: Callable[..., Sequence[Figure]]) -> None:
    """Measure `figures(quick=…)`, print the lines and write them into the README where the command line wishes that."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--quick", action="store_true", help="little of it, fast: not for the README")
    parser.add_argument("--write", action="store_true", help="write the lines into the README's table")
    given = parser.parse_args()
    measured = figures(quick=given.quick)
    print(table(measured))
    if given.write and not given.quick:
        markers.write("figures", replaced(markers.read("figures"), measured))


def _id(row: str) -> str:
    return row.split("|")[1].strip()


def in_turns(*sides: Callable[[], _Taken], pairs: int = PAIRS) -> tuple[tuple[_Taken, ...], ...]:
    """Measure the sides A B A B …, `pairs` times each; return what each side took, in order."""
    taken: tuple[list[_Taken], ...] = tuple([] for _ in sides)
    for _ in range(pairs):
        for side, times in zip(sides, taken, strict=True):
            times.append(side())
    return tuple(tuple(times) for times in taken)


def wall(command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> float:
    """Return the seconds from exec to exit of a command that succeeds; raises CalledProcessError where it does not."""
    start = time.perf_counter()
    subprocess.run(command, env=env, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - start


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of all below it, those that have ended among them."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:4]) for one in family)


def wait_for(condition: Callable[[], bool], *, seconds: float, every: float = 0.005) -> None:
    """Wait until `condition` holds, asking again after `every` seconds; raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come true within {seconds} s")
        time.sleep(every)


def free_port() -> int:
    """Return a port of this host that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def machine(**peers: str) -> str:
    """Return the machine and the versions, those of `peers` among them, in one sentence."""
    import torch  # noqa: PLC0415 - two seconds, which no timed process of ours may share

    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), platform.machine())
    versions = {"Python": platform.python_version(), "torch": torch.__version__, **peers}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' if cores > 1 else ''} of {model}, no GPU used; {listed}."


def seconds(value: float) -> str:
    """Return a time with two or three digits that count; what takes for ever never comes."""
    if math.isinf(value):
        return "never"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"  # noqa: PLR2004 - where a third digit says nothing


def milliseconds(value: float) -> str:
    """Return a short time."""
    return f"{1000 * value:.1f} ms"


def mebibytes(value: float) -> str:
    """Return a number of bytes in MiB."""
    return f"{value / 2**20:,.0f} MiB"
