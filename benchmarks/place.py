"""Where the benchmarks work: homes of orch of their own, peers' environments kept under .bench, a sample to train."""

import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator import config

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".bench"
ORCH = Path(sys.executable).with_name("orch")


@dataclass(frozen=True)
class Home:
    """A home of orch that nobody else uses."""

    settings: config.Settings
    env: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Its folder, and where its commands run."""
        return self.settings.home

    def orch(self, *arguments: str) -> str:
        """Run an orch command and return what it prints; raises CalledProcessError where it fails."""
        command = [str(ORCH), *arguments]
        return subprocess.run(
            command, env=self.env, cwd=self.folder, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


@contextmanager
def home(**settings: str) -> Iterator[Home]:
    """Make a home with an empty database; take down what was started in it, and remove it."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder:
        settings |= {"home": folder, "lock_dir": f"{folder}/locks"}
        variables = {config.variable(name): value for name, value in settings.items()}
        here = Home(config.load(**settings), clean_environment(**variables))
        here.orch("db", "upgrade")
        try:
            yield here
        finally:
            here.orch("down")


@contextmanager
def node(**settings: str) -> Iterator[Home]:
    """Make a home with a node that has a CPU slot and waits for work."""
    with home(**settings) as here:
        here.orch("up", "-d", "--devices", "cpu")
        yield here


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this environment without the settings of anybody's orch.

    Python may keep what it has compiled: what pip installs is compiled already.
    """
    inherited = config.child_environment(config.Settings())
    left_out = (config.PREFIX, "PYTHONDONTWRITEBYTECODE")
    return {key: value for key, value in inherited.items() if not key.startswith(left_out)} | extra


def peer(name: str, package: str | None = None) -> Path:
    """Return the bin folder of an environment with the program `name`, of the package; installed at the first call."""
    folder = KEPT / name
    if not (folder / "bin" / name).exists():
        venv.create(folder, with_pip=True, clear=True)
        _pip(folder, package or name)
    return folder / "bin"


def installed() -> Path:
    """Return the command `orch` as pip installs it for people: in an environment of its own, without torch."""
    folder = KEPT / "orch"
    if not folder.exists():
        venv.create(folder, with_pip=True)
        _pip(folder, str(ROOT))
    _pip(folder, "--force-reinstall", "--no-deps", str(ROOT))  # the checkout may have changed
    return folder / "bin" / "orch"


def _pip(folder: Path, *words: str) -> None:
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *words], check=True)


def version(name: str) -> str:
    """Return the version of a peer, as its own command tells it."""
    command = [str(peer(name) / name), "--version"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def sample(folder: Path, *, train: int, val: int, side: int = 32) -> Path:
    """Write pictures of noise in two classes, `train` and `val` of them in all; return the folder."""
    noise = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            path = folder / split / ("dark", "light")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low = 128 * (index % 2)
            pixels = noise.integers(low, low + 128, size=(side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def photographs(folder: Path, archive: Path | None) -> Path:
    """Unpack photographs in the layout of a data set, or draw as many as it has by default; return their folder."""
    if archive is not None:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        return next(found.parent for found in sorted(folder.rglob("train")) if found.is_dir())
    noise = np.random.default_rng(0)
    for split, count in (("train", 1000), ("val", 100)):
        for index in range(count):
            path = folder / split / ("cats", "dogs")[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = noise.integers(0, 256, size=(94, 125, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
            picture.save(path, quality=82)
    return folder
