"""Switch the guards off, one at a time, in a copy of the checkout, and see that a test notices each.

python -m tests.faults.sabotage                        every guard
python -m tests.faults.sabotage fence lease            these
python -m tests.faults.sabotage --list                 their names, and what would be done
python -m tests.faults.sabotage --table FILE           and write their rows between the markers of FILE
python -m tests.faults.sabotage --table FILE --missing only those that have no row there
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from docs import markers

ROOT = Path(__file__).parents[2]

#: Seconds of one test: without its guard, one may wait for ever.
TEST_SECONDS = 30
#: Exit codes of pytest: all passed, some failed.
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard of `guards.toml`, which says what the fields mean."""

    name: str
    without: str
    file: str
    old: str
    new: str
    tests: list[str]
    further: list[tuple[str, str, str]] = field(default_factory=list)
    long: bool = False


GUARDS = [Guard(**entry) for entry in tomllib.loads((ROOT / "tests/faults/guards.toml").read_text("utf-8"))["guard"]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the tests of a guard said while it was off."""

    guard: Guard
    noticed_by: str | None  #: the test that failed; None where none did
    seconds: float
    output: str


def main() -> int:
    """Run the tests of the chosen guards with and without each, print the table; 1 where a guard is not missed."""
    arguments = _arguments()
    rows = earlier(arguments.table) if arguments.table else {}
    chosen = [guard for guard in GUARDS if not arguments.names or guard.name in arguments.names]
    if arguments.missing:
        chosen = [guard for guard in chosen if guard.name not in rows]
    if arguments.list:
        sys.stdout.writelines(f"{guard.name:20} {guard.without} ({guard.file})\n" for guard in chosen)
        return 0
    with checkout() as copy:
        said = tests_of(chosen, copy, seconds=arguments.seconds)
        if said.returncode != _PASSED:
            sys.stderr.write(f"{said.stdout}\nwith every guard in place, these tests do not pass\n")
            return 1
        results = []
        for guard in chosen:
            results.append(_told(without(guard, copy, seconds=arguments.seconds)))
            rows[guard.name] = row(results[-1])
            if arguments.table:  # each at once: a long run that is broken off keeps what it has
                markers.write("sabotage", table(rows), file=arguments.table)
    if not arguments.table:
        sys.stdout.write(table(rows) + "\n")
    return int(any(result.noticed_by is None for result in results))


@contextmanager
def checkout() -> Iterator[Path]:
    """Yield a copy of the checkout's files, those that git does not ignore."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL, which refuses root, runs from here as another user
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        yield Path(folder)


def without(guard: Guard, copy: Path, *, seconds: int = TEST_SECONDS) -> Result:
    """Run the guard's tests in the copy while it is off; the copy is as before afterwards."""
    began = time.monotonic()
    originals = {file: (copy / file).read_text(encoding="utf-8") for file, _, _ in changes(guard)}
    try:
        for file, old, new in changes(guard):
            (copy / file).write_text(applied(originals[file], old, new), encoding="utf-8")
        said = tests_of([guard], copy, seconds=seconds)
    finally:
        for file, text in originals.items():
            (copy / file).write_text(text, encoding="utf-8")
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", said.stdout, re.MULTILINE)
    noticed = failed[1] if failed and said.returncode == _FAILED else None
    return Result(guard=guard, noticed_by=noticed, seconds=time.monotonic() - began, output=said.stdout)


def changes(guard: Guard) -> list[tuple[str, str, str]]:
    """Return (file, old, new) of every change that switches the guard off."""
    return [(guard.file, guard.old, guard.new), *guard.further]


def applied(text: str, old: str, new: str) -> str:
    """Return the text with the change made; raises ValueError unless what it replaces stands there exactly once."""
    if (found := text.count(old)) != 1:
        raise ValueError(f"{old!r} stands there {found} times: the guard has moved, and so must its entry")
    return text.replace(old, new)


def tests_of(chosen: Sequence[Guard], copy: Path, *, seconds: int) -> "subprocess.CompletedProcess[str]":
    """Run the tests of the guards in the copy, up to the first failure."""
    nodes = sorted({node for guard in chosen for node in guard.tests})
    options = ["-x", "-q", "-rf", "--no-header", f"--timeout={seconds}", "-p", "no:cacheprovider"]
    options += ["-o", "timeout_func_only=true"]  # what a busy machine takes to start a server tells nothing
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *nodes],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},  # noqa: TID251 - no orch setting
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def row(result: Result) -> str:
    """Return the result as a row of the table."""
    return f"| {result.guard.name} | {result.guard.without} | {_shown(result.noticed_by)} | {result.seconds:.1f} |"


def table(rows: Mapping[str, str]) -> str:
    """Return the rows, which have the names of guards, as a table in Markdown; of guards that are gone, none."""
    kept = [rows[guard.name] for guard in GUARDS if guard.name in rows]
    return "\n".join(["| guard | without it | noticed by | seconds |", "|---|---|---|---|", *kept])


def earlier(file: Path) -> dict[str, str]:
    """Return the rows of the file's table by the names of their guards."""
    rows = markers.read("sabotage", file=file).splitlines()[2:]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def _shown(node: str | None) -> str:
    if node is None:
        return "**nobody**"
    file, _, test = node.partition("::")
    return f"`{test.partition('[')[0]}` ({file.removeprefix('tests/')})"


def _told(result: Result) -> Result:
    sys.stderr.write(f"{result.guard.name:20} {result.seconds:6.1f} s  {result.noticed_by or 'NOT NOTICED'}\n")
    if result.noticed_by is None:
        sys.stderr.write(result.output)
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sabotage", description="Switch the guards off.")
    parser.add_argument("names", nargs="*", help="guards; all without one")
    parser.add_argument("--list", action="store_true", help="list the guards")
    parser.add_argument("--table", type=Path, help="Markdown file with the markers of the table")
    parser.add_argument("--missing", action="store_true", help="those without a row in that table")
    parser.add_argument("--seconds", type=int, default=TEST_SECONDS, help="limit of a test; more on a busy machine")
    arguments = parser.parse_args()
    if arguments.missing and not arguments.table:
        parser.error("--missing needs --table")
    if unknown := set(arguments.names) - {guard.name for guard in GUARDS}:
        parser.error(f"no such guard: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
