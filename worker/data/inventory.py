"""What the cache holds, for people: each set once, whatever it came from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import errors
from orchestrator.core import jobs
from worker.data import cache, imagefolder


@dataclass(frozen=True, kw_only=True)
class Held:
    """A set that is here."""

    manifest: cache.Manifest
    sources: tuple[str, ...]
    folder: Path  #: that holds its splits
    unpacked: bool  #: here for the cache's sake; else it is somebody's folder
    used_at: float  #: seconds of the epoch

    @property
    def whole(self) -> bool:
        """Whether every picture is as it was admitted, by path, size and time."""
        try:
            return imagefolder.listing(imagefolder.discover(self.folder)) == self.manifest.listing
        except (OSError, errors.StageFailed):
            return False


def held(where: cache.Cache) -> Iterator[Held]:
    """Yield every set, unpacked ones first."""
    records = list(where.records())
    unpacked = list(where.manifests())
    for folder, manifest in unpacked:
        known = [(path, record) for path, record in records if record.manifest.hash == manifest.hash]
        yield Held(
            manifest=manifest,
            sources=tuple(dict.fromkeys((manifest.source, *(record.manifest.source for _, record in known)))),
            folder=folder / "data",
            unpacked=True,
            used_at=max(_changed(path) for path in (folder / "manifest.json", *(path for path, _ in known))),
        )
    ours = {manifest.hash for _, manifest in unpacked}
    for path, record in records:
        # Several folders may hold the same set: each stands for itself.
        if record.archive_sha256 is None and record.manifest.hash not in ours:
            yield Held(
                manifest=record.manifest,
                sources=(record.manifest.source,),
                folder=Path(record.manifest.source),
                unpacked=False,
                used_at=_changed(path),
            )


def counts(layout: imagefolder.Layout) -> dict[jobs.Split, list[int]]:
    """Return how many pictures each class has in each split."""
    found = {split: Counter(picture.label for picture in pictures) for split, pictures in layout.pictures.items()}
    return {split: [labels[label] for label in range(len(layout.classes))] for split, labels in found.items()}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
