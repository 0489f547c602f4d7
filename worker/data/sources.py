"""What a job's `data` may name: a packaged or well-known set, a URL, an archive or a folder on this host."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from orchestrator import config
from orchestrator.core import masking, presets, spelling
from worker.data import imagefolder
from worker.refusals import refused

CATS_AND_DOGS = "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip"
DIGITS = Path(__file__).with_name("digits.zip")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from. `location` is a URL, the name of one of torchvision's, or an absolute path."""

    kind: Literal["packaged", "url", "named", "path"]
    location: str
    label: str  #: for people: without credentials

    @property
    def path(self) -> Path:
        """The path of a source on this host."""
        return Path(self.location)

    @property
    def key(self) -> str:
        """Name of the source's files in the cache."""
        return hashlib.sha256(f"{self.kind} {self.location}".encode(errors="surrogateescape")).hexdigest()[:32]

    @property
    def is_fetched(self) -> bool:
        """Whether it comes from elsewhere."""
        return self.kind in {"url", "named"}

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this host, which is used where it is."""
        return self.kind == "path" and self.path.is_dir()


def parse(data: str) -> Source:
    """Return the source that `data` means; looks at the text alone.

    Raises:
        StageFailed: bad_input, when it is no source.

    """
    if data == "cats_and_dogs":
        return Source(kind="url", location=CATS_AND_DOGS, label=data)
    if data == "digits":
        return Source(kind="packaged", location=str(DIGITS), label=data)
    if data.startswith(presets.TORCHVISION) and data in presets.DATA:
        return Source(kind="named", location=data.removeprefix(presets.TORCHVISION), label=data)
    scheme = data.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        return Source(kind="url", location=data, label=masking.data(data))
    path = _path_of_url(data) if scheme == "file" else data
    if "\0" in path or not path.startswith("/"):
        raise refused(
            f"There is no data set {masking.value(data)}{spelling.nearest(data, dict(presets.DATA))}",
            why="It is neither a known name, nor an http(s) URL, nor an absolute path.",
            hint="Give the whole path of the folder or zip archive, from / on.",
        )
    return Source(kind="path", location=path, label=path)


def check_allowed(source: Source, settings: config.Settings) -> None:
    """Check that a path source is there and below the folders that jobs may name.

    Raises:
        StageFailed: bad_input.

    """
    if source.kind != "path":
        return
    roots = settings.data_roots
    if roots is None and not settings.embedded_database:
        raise refused(
            "This worker takes no data from its own disk.",
            why="It is shared by everyone who can reach its database, and data_roots is not set.",
            hint=f"Set {config.variable('data_roots')} to the folders that jobs may name, or give a URL.",
        )
    # Links are resolved first, so that no link below a root leads out of it; what is outside is not even looked for.
    real = _resolved(source.path)
    if real is None:
        raise refused(
            f"{masking.value(source.label)} is no path that can be followed.",
            why="It is too long, or its links lead in a circle.",
            hint="Give the path of a folder of pictures, or of a zip archive.",
        )
    if roots is not None and not any(real.is_relative_to(root.resolve()) for root in roots):
        raise refused(
            f"{source.label} is outside the folders that jobs may name.",
            why="data_roots allows " + ", ".join(str(root) for root in roots) + ".",
            hint="Move the data below one of them.",
        )
    if not real.exists():
        raise refused(
            f"There is no {source.label} on this host.",
            why="The worker looks for the path on its own disk.",
            hint="Check the path, or give a URL that every worker can reach.",
        )
    if not (real.is_dir() or real.is_file()):
        raise refused(
            f"{source.label} is neither a folder nor a file.",
            why="A device or a pipe may have no end.",
            hint="Give a folder of pictures, or a zip archive of one.",
        )


def check_links(layout: imagefolder.Layout, settings: config.Settings) -> None:
    """Check that no link among a folder's pictures leads out of the folders that jobs may name.

    Raises:
        StageFailed: bad_input.

    """
    if not settings.data_roots:
        return
    roots = [root.resolve() for root in settings.data_roots]
    for picture in layout.all():
        real = _resolved(layout.root / picture.path)
        if real is None or not any(real.is_relative_to(root) for root in roots):
            raise refused(
                f"{picture.path} is a link that leads out of the folders that jobs may name.",
                why="A shared worker reads nothing else on its disk.",
                hint="Put the picture itself into the data set.",
            )


def _resolved(path: Path) -> Path | None:
    try:
        real = path.resolve()
        real.exists()
    except (OSError, RuntimeError):
        return None
    return real


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return unquote(parts.path) if parts.netloc in {"", "localhost"} else ""
