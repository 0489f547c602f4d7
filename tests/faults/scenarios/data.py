"""Where data comes from, and who waits for whom."""

from orchestrator.core import weights
from tests.faults import homes
from tests.faults.scenarios import work

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


def weighted(home: homes.Home) -> None:
    """A training starts from weights that are downloaded."""
    home.arm()
    work.succeeds(home, home.submit(weights=weights.IMAGENET))
