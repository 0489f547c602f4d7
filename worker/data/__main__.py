"""`python -m worker.data`: what `orch data` asks about the cache of this host."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from orchestrator import config, errors
from orchestrator.core import specs
from worker import answers, protocol
from worker.data import cache, decoded, imagefolder, inventory, sheet, supply


class Request(answers.Request):
    """What to do; `source` as in a job, `hash` of a set that is here."""

    do: Literal["list", "add", "examine", "remove"]
    source: str = ""
    sha256: str | None = None
    hash: str = ""
    sheet: Path | None = None


def main() -> int:
    """Answer the request on standard input."""
    return answers.serve(Request, lambda request, say: WORK[request.do](request, say))


def _list(_: Request, say: answers.Say) -> None:
    for held in inventory.held(_cache()):
        say(_row(held))


def _add(request: Request, say: answers.Say) -> None:
    """Bring a data set here as a job would, every picture checked."""
    spec = specs.parse({"data": request.source, "data_sha256": request.sha256})

    def tell(progress: protocol.Progress) -> None:
        say({"progress": {"done": progress.done, "total": progress.total, "unit": progress.unit}})

    data = supply.ensure_data(spec, expected_hash=None, settings=config.load(), report=tell)
    say(_row(_held(data.hash)))


def _examine(request: Request, say: answers.Say) -> None:
    """Read every picture: say what is wrong with them, what both splits have, and whether the content hash stands."""
    held = _held(request.hash)
    layout = imagefolder.discover(held.folder)
    total = sum(len(pictures) for pictures in layout.pictures.values())
    examined = imagefolder.examine(
        layout, report=lambda done: say({"progress": {"done": done, "total": total, "unit": "images"}})
    )
    drawn = _draw(layout, request.sheet) if request.sheet is not None else None
    say(
        _row(held)
        | {
            "found": examined.hash,
            "faults": list(examined.faults),
            "by_class": inventory.counts(layout),
            "duplicates": [{"train": shared.train, "val": shared.val} for shared in examined.shared(layout)],
            "drawn": drawn,
        }
    )


def _draw(layout: imagefolder.Layout, path: Path) -> tuple[int, int]:
    try:
        return sheet.draw(layout, path)
    except OSError as error:
        raise errors.OrchError("The sheet cannot be written.", why=error.strerror or str(error)) from error


def _remove(request: Request, say: answers.Say) -> None:
    held = _held(request.hash)
    _cache().remove(request.hash)
    say(_row(held))


def _held(content_hash: str) -> inventory.Held:
    for held in inventory.held(_cache()):
        if held.manifest.hash == content_hash:
            return held
    raise errors.OrchError(f"The data set {content_hash[:12]} is no longer here.")


def _row(held: inventory.Held) -> answers.Answer:
    known = held.manifest
    return {
        "hash": known.hash,
        "sources": held.sources,
        "classes": known.classes,
        "counts": known.counts,
        "bytes": known.bytes,
        "decoded": decoded.taken(config.load().data_dir, known.hash),
        "shared": known.shared,
        "path": str(held.folder),
        "unpacked": held.unpacked,
        "whole": held.whole,
        "used_at": held.used_at,
    }


def _cache() -> cache.Cache:
    return cache.Cache(config.load().data_dir)


#: What is done for each request.
WORK: dict[str, Callable[[Request, answers.Say], None]] = {
    "list": _list,
    "add": _add,
    "examine": _examine,
    "remove": _remove,
}

if __name__ == "__main__":
    sys.exit(main())
