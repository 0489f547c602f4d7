"""The README's session and pictures: real commands on a real job, recorded in a pseudo-terminal, drawn by rich."""

import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchmarks import place
from docs import markers
from orchestrator.cli import demo

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 100, 50

#: A live display goes back to its first line, erasing what it passes, before it draws the next frame.
REDRAW = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
#: What neither colours nor draws: cursor shown, cursor hidden.
CURSOR = re.compile(r"\x1b\[\?25[hl]")
WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    """Train the digits as the demo does, draw the job while it trains and after it, and write the session down."""
    # One thread: the digits train as fast beside other work as alone.
    with place.node(user="ada", worker_name="desk", threads="1") as home:
        session = [spoken(home, "submit", "--recipe", demo.RECIPE)]
        watched = REDRAW.split(recorded(home, "watch", "@latest"))
        training = [frame for frame in watched if "training" in frame.lstrip().partition("\n")[0]]
        draw("watch", training[len(training) * 3 // 4], command="orch watch @latest")
        draw("status", recorded(home, "status", "@latest"), command="orch status @latest")
        shutil.copy(next(home.folder.glob("data/**/val*/7/*.png")), home.folder / "seven.png")
        session += [spoken(home, "list"), spoken(home, "predict", "@latest", "seven.png")]
    markers.write("session", "```\n" + "\n\n".join(session) + "\n```")


def spoken(home: place.Home, *arguments: str) -> str:
    """Run an orch command, and return it and what it says as plain text."""
    said = Text.from_ansi(recorded(home, *arguments).replace("\r\n", "\n")).plain
    lines = [line.rstrip() for line in said.strip("\n").splitlines()]
    return "\n".join([f"$ {shlex.join(['orch', *arguments])}", *lines])


def recorded(home: place.Home, *arguments: str) -> str:
    """Run an orch command on a terminal of `WIDTH` by `HEIGHT`, and return everything that it prints."""
    command = [str(place.ORCH), *arguments]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    env = {**home.env, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(  # noqa: S603 - our own commands
        command, env=env, cwd=home.folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}: {said.decode()}")
    return said.decode()


def draw(name: str, said: str, *, command: str) -> None:
    """Write what a terminal was told as an SVG picture."""
    lines = CURSOR.sub("", said).replace("\r\n", "\n").strip("\n")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(lines))
    picture = console.export_svg(title=command, unique_id=name)
    (FOLDER / f"{name}.svg").write_text(WEB_FONT.sub("", picture), encoding="utf-8")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the last one at the other end has gone
        return b""


if __name__ == "__main__":
    main()
