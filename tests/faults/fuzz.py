"""Random inputs for the three places where bytes from outside are judged: archives, URLs and job files.

    python -m tests.faults.fuzz --examples 100000 --seed 1

Examples take turns; each is made from (seed, its number) alone, so that `--only NUMBER` makes it again. An example
passes when it is taken, or refused by an error of our own, in bounded time, and nothing lies outside its folder.
"""

import argparse
import contextlib
import functools
import random
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import urllib3.util.connection

from orchestrator import errors
from orchestrator.core import jobs, states
from orchestrator.service import jobfile
from tests.faults.corpus import archives, commands
from worker.data import archive, download, zipcheck

#: Seconds of one core that no example may take.
SLOWEST = 10.0

#: Bytes by which the process may grow over all examples.
MOST_MEMORY = 512 * 2**20

_LIMITS = zipcheck.Limits(max_bytes=20_000_000)
_POLICY = download.Policy(max_bytes=10**6, max_seconds=5, private_hosts_allowed=False, tries=1)
_TEXTS = [content for case in commands.JOB_FILES for content in case.files.values() if len(content) < 1000]
_GOOD = [
    b'name = "cats"\ntags = ["a", "b"]\npriority = 2\nlr = 1e-4\nblocks = [6, 6, 6]\nflip = false\nseed = 0x1f\n',
    b"data: digits\nname: cats\ntags: [a, b]\npriority: -2\nlr: 1e-4\nblocks:\n  - 6\n  - 6\nmax_duration: 1.5\n",
    b'{"data": "https://host/set.zip", "crop_scale": [0.1, 0.9], "network": "densenet_tiny", "epochs": "3"}',
]
_URLS = [case.words[-1].encode() for case in commands.URLS]
_HOSTS = (
    "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "LOCALHOST.", "[::1]", "0",
    "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:7f00:1::]", "169.254.169.254", "8.8.8.8", "[2606:4700::1111]",
    "host.example", "xn--nxasmq6b", "b\u00fccher.example", "\uff11\uff12\uff17.0.0.1", "a..b",
    "1.1.1.1#@10.0.0.1", "8.8.8.8@10.0.0.1",
)  # fmt: skip
_ADDRESSES = (
    "8.8.8.8",
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "::1",
    "2606:4700::1111",
    "fe80::1",
    "::ffff:127.0.0.1",
)


class Unsafe(Exception):
    """An example broke a promise."""


@dataclass
class Tally:
    """What became of the examples."""

    examples: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


def mutated(data: bytes, chance: random.Random, *, others: list[bytes]) -> bytes:
    """Return `data` after a few changes of the kinds that find faults in parsers."""
    out = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 1, 1, 2, 5))):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << chance.randrange(8)
            case 1:
                out[at : at + chance.choice((1, 2, 4))] = chance.choice(
                    (b"\0", b"\xff", b"\xff\xff", bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff")
                )
            case 2:
                del out[at : at + chance.randrange(1, 64)]
            case 3:
                out[at:at] = out[(begin := chance.randrange(len(out) + 1)) : begin + chance.randrange(1, 200)]
            case 4:
                other = chance.choice(others)
                out[at:] = other[chance.randrange(len(other) + 1) :]
            case 5:
                del out[at:]
            case _:
                out[at:at] = chance.randbytes(chance.randrange(1, 16))
    return bytes(out)


@functools.cache
def _small() -> list[bytes]:
    """Return archives that must not be unpacked, but for the large ones."""
    return [data for case in archives.CASES if len(data := case.data) < 20_000]


def fuzz_archive(chance: random.Random, folder: Path) -> None:
    """Unpack a mutated archive."""
    small = _small()
    data = mutated(chance.choice((archives.PLAIN, archives.beside(), chance.choice(small))), chance, others=small)
    (folder / "set.zip").write_bytes(data)
    (folder / "box").mkdir()
    try:
        archive.extract(folder / "set.zip", into=folder / "box" / "new", limits=_LIMITS, report=lambda *_: None)
    except errors.StageFailed:
        if list((folder / "box").iterdir()):
            raise Unsafe("a refused archive left something behind") from None
        raise
    finally:
        if {path.name for path in folder.iterdir()} != {"set.zip", "box"}:
            raise Unsafe("something lies outside the folder")
        if any(path.is_symlink() or not (path.is_dir() or path.is_file()) for path in folder.rglob("*")):
            raise Unsafe("a link or a device was made")


def fuzz_url(chance: random.Random, folder: Path) -> None:
    """Download from a mutated URL whose host resolves to anything; a connection to a private address is a failure."""
    host, port = chance.choice(_HOSTS), chance.choice(("", ":80", ":0", ":65536", ":x", ":8080"))
    account = chance.choice(("", "", "u:p@", "u@", "@", "u:p@h@"))
    scheme, path = chance.choice(("http", "https", "HTTP", "ftp", "file")), chance.choice(("", "a?b#c", "../x"))
    made = f"{scheme}://{account}{host}{port}/{path}"
    text = mutated(chance.choice((made.encode(), made.encode(), chance.choice(_URLS))), chance, others=_URLS).decode(
        errors="surrogateescape"
    )

    def resolve(name: str | bytes, port: int, *args: Any, **options: Any) -> Any:
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            options["flags"] = socket.AI_NUMERICHOST
            return _resolve(name, port, *args, **options)
        answers = chance.sample(_ADDRESSES, chance.randrange(1, 3))
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers
        ]

    def connect(address: tuple[str, int], *_args: Any, **_options: Any) -> NoReturn:
        ip: Any = ip_address(address[0])
        if not (getattr(ip, "ipv4_mapped", None) or ip).is_global:
            raise Unsafe(f"connected to {address[0]}")
        raise ConnectionRefusedError

    with (
        mock.patch.object(socket, "getaddrinfo", resolve),
        mock.patch.object(urllib3.util.connection, "create_connection", connect),
    ):
        download.fetch(text, folder=folder, name="x", sha256=None, policy=_POLICY, report=lambda *_: None)


def fuzz_job_file(chance: random.Random, _folder: Path) -> None:
    """Read a mutated job file to the end: a job about to be stored."""
    data = mutated(chance.choice(chance.choice((_GOOD, _TEXTS))), chance, others=_TEXTS)
    file = jobfile.parse(data, origin=chance.choice(("job", "job.toml", "job.yaml")))
    resolved = jobfile.resolve(flags={}, file=file)
    jobs.NewJob(spec=resolved.spec, user="fuzz", name=file.name, tags=file.tags, priority=file.priority or 0)
    resolved.spec.digest()


TARGETS: tuple[Callable[[random.Random, Path], None], ...] = (fuzz_archive, fuzz_url, fuzz_job_file)
_resolve = socket.getaddrinfo


def run(numbers: Iterator[int], *, seed: int) -> Tally:
    """Run these examples and return what became of them."""
    tally = Tally()
    _small()  # it is made at its first look: that is no growth
    memory = _peak()
    with tempfile.TemporaryDirectory(prefix="orch-fuzz-") as scratch:
        for number in numbers:
            folder = Path(scratch) / "example"
            folder.mkdir()
            began = time.process_time()
            fault = _fault(number, seed, folder, tally)
            took = time.process_time() - began
            tally.examples += 1
            tally.slowest = max(tally.slowest, took)
            if took > SLOWEST:
                fault = f"took {took:.1f} s"
            if {path.name for path in Path(scratch).iterdir()} != {"example"}:
                fault = "something lies outside the example's folder"
            if fault is not None:
                tally.failures.append(f"example {number} of seed {seed} ({TARGETS[number % 3].__name__}): {fault}")
            shutil.rmtree(folder)
    if (grown := _peak() - memory) > MOST_MEMORY:
        tally.failures.append(f"the process grew by {grown:,} bytes")
    return tally


def _fault(number: int, seed: int, folder: Path, tally: Tally) -> str | None:
    target = TARGETS[number % len(TARGETS)]
    try:
        target(random.Random(f"{seed} {number}"), folder)  # noqa: S311 - examples, no keys
    except (errors.StageFailed, errors.InvalidSpec) as error:
        let_pass = isinstance(error, errors.StageFailed) and error.reason == states.Reason.UNREACHABLE  # as intended
        (tally.taken if let_pass else tally.refused)[target.__name__] += 1
        return "the message has two lines" if "\n" in error.message else None
    except Exception as error:  # noqa: BLE001 - what must not come out
        return f"{type(error).__name__}: {error}"
    tally.taken[target.__name__] += 1
    return None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run the examples that the command line asks for."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", type=int, help="make this one example again")
    asked = parser.parse_args()
    began = time.monotonic()
    tally = run(iter([asked.only] if asked.only is not None else range(asked.examples)), seed=asked.seed)
    for target in (target.__name__ for target in TARGETS):
        print(f"{target:14} taken {tally.taken[target]:6}  refused {tally.refused[target]:6}")  # noqa: T201 - its report - a program
    took = time.monotonic() - began
    print(f"{tally.examples} examples of seed {asked.seed} in {took:.0f} s, slowest {tally.slowest:.2f} s")  # noqa: T201 - its report
    sys.stdout.write("".join(f"FAILED {failure}\n" for failure in tally.failures))
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
