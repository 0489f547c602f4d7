"""Where data comes from, and who waits for whom."""

import shutil

from orchestrator.core import weights
from tests.faults import homes
from tests.faults.scenarios import work
from worker.data import sources, whole

#: Bytes of decoded pictures that are kept in `crowded`.
ROOM = 12_000


def local(home: homes.Home) -> None:
    """An archive on this host."""
    home.arm()
    work.succeeds(home, home.submit(str(home.shared.archive)))


def two_at_once(home: homes.Home) -> None:
    """Who comes second waits for the first one's download, and reads how far it is."""
    home.set("archive.open", "hold")
    first = home.submit()
    home.held("archive.open")
    home.arm()
    second = home.submit()
    home.until(home.reached)
    home.let_go("archive.open")
    work.succeeds(home, first)
    work.succeeds(home, second)


def crowded(home: homes.Home) -> None:
    """Another set's decoded pictures have all the room."""
    other = home.settings.data_dir / "decoded" / "other"
    other.mkdir(parents=True)
    (other / "all.pixels").write_bytes(bytes(ROOM))
    home.arm()
    work.succeeds(home, home.submit())


def named(home: homes.Home) -> None:
    """One of torchvision's data sets."""
    home.shared.serve_named("Imagenette")
    home.arm()
    work.succeeds(home, home.submit("torchvision:Imagenette"))


def named_before(home: homes.Home) -> None:
    """One of torchvision's data sets, of which an earlier attempt has downloaded the file."""
    data, archives = "torchvision:Imagenette", home.settings.data_dir / "archives"
    archives.mkdir(parents=True)
    shutil.copy(home.shared.serve_named("Imagenette"), archives / f"{sources.parse(data).key}.0.file")
    home.arm()
    work.succeeds(home, home.submit(data))


def spoilt(home: homes.Home) -> None:
    """An earlier attempt has left a downloaded archive, which the disk has spoilt since."""
    url, archives = f"{home.shared.url}/tiny.zip", home.settings.data_dir / "archives"
    waiting = archives / f"{sources.parse(url).key}.zip"
    archives.mkdir(parents=True)
    whole.note(waiting, "0" * 64)
    shutil.copy(home.shared.archive, waiting)
    home.arm()
    work.succeeds(home, home.submit(url))


def weighted(home: homes.Home) -> None:
    """A training starts from weights that are downloaded."""
    home.arm()
    work.succeeds(home, home.submit(weights=weights.IMAGENET))
