"""The data sets of this host: what the cache holds, what is in it, and which jobs use it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator import config, errors
from orchestrator.core import masking
from orchestrator.core.jobs import Job, JobFilter
from orchestrator.service import asking, drafts, jobfile, query
from orchestrator.store.base import Store

#: Jobs of a set that are counted; more are "so many and more".
JOBS_COUNTED = 100

#: Called with how far the work is, how much there is, and the unit: bytes or images.
Report = Callable[[int, int | None, str], None]

_SHORTEST = 3  # characters of a hash that name a set
_LINEFUL = 5  # ids in an error
_MODULE = "worker.data"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A data set on this host."""

    hash: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    counts: dict[str, int]  #: pictures per split: train, val
    bytes: int
    decoded: int  #: bytes of its pictures' pixels, which trainings have kept
    shared: int  #: pictures of val whose bytes train has too
    path: str
    unpacked: bool  #: in the cache; else a folder that is used where it is
    whole: bool  #: its files are as they were admitted, by path, size and time
    used_at: datetime
    jobs: tuple[str, ...] = ()  #: ids of those that used it, the newest first, `JOBS_COUNTED` at most
    live: tuple[str, ...] = ()  #: ids of those that have not ended


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Pictures of both splits with the very same bytes."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What reading every picture of a set gave."""

    held: Held
    found: str  #: the content hash as it is now
    faults: tuple[str, ...]  #: pictures that cannot be read, each with what is wrong
    by_class: dict[str, tuple[int, ...]]  #: pictures per split, in the order of the classes
    duplicates: tuple[Shared, ...]
    drawn: tuple[int, int] | None  #: pictures and classes on the contact sheet

    @property
    def sound(self) -> bool:
        """Whether it is what it was."""
        return self.found == self.held.hash and not self.faults


def held(settings: config.Settings, store: Store) -> list[Held]:
    """Return the sets that are here, the last used first."""
    active = store.jobs(JobFilter(states=query.ACTIVE))
    rows = [_held(answer, store, active) for answer in asking.ask(settings, _MODULE, {"do": "list"})]
    return sorted(rows, key=lambda row: row.used_at, reverse=True)


def find(settings: config.Settings, store: Store, text: str) -> Held:
    """Return the one set that `text` means: its hash, three or more characters that begin it, or its source.

    Raises NotFound, or Ambiguous with the candidates' hashes.
    """
    rows = held(settings, store)
    sources = {text, masking.data(text), str(Path(text).absolute())}  # of a URL with a secret the rest is known
    found = [row for row in rows if text == row.hash or sources & set(row.sources)]
    if not found and len(text) >= _SHORTEST:
        found = [row for row in rows if row.hash.startswith(text)]
    if not found:
        raise errors.NotFound(
            f"There is no data set {masking.value(text)} on this host.", hint="`orch data list` shows all."
        )
    if len({row.hash for row in found}) > 1:
        raise errors.Ambiguous(
            f"Several data sets answer to {masking.value(text)}.", candidates=tuple(row.hash[:12] for row in found)
        )
    return found[0]


def add(settings: config.Settings, store: Store, source: str, *, sha256: str | None, report: Report) -> Held:
    """Bring a data set here as a job would: downloaded, checked, every picture decoded once.

    Raises InvalidSpec for what names none, OrchError where it cannot be had.
    """
    wanted: dict[str, object] = {"do": "add", "source": jobfile.data_source(source), "sha256": sha256}
    (answer,) = _last(settings, wanted, report)
    return _held(answer, store, store.jobs(JobFilter(states=query.ACTIVE)))


def examine(
    settings: config.Settings, store: Store, text: str, *, report: Report, sheet: Path | None = None
) -> Examined:
    """Read every picture of a set, and draw a contact sheet where one is asked for; raises NotFound, OrchError."""
    chosen = find(settings, store, text)
    with drafts.drafts(sheet) if sheet else nullcontext((None,)) as (draft,):
        wanted: dict[str, object] = {"do": "examine", "hash": chosen.hash, "sheet": str(draft) if draft else None}
        (answer,) = _last(settings, wanted, report)
    return Examined(
        held=chosen,
        found=answer["found"],
        faults=tuple(answer["faults"]),
        by_class={split: tuple(counts) for split, counts in answer["by_class"].items()},
        duplicates=tuple(Shared(train=tuple(one["train"]), val=tuple(one["val"])) for one in answer["duplicates"]),
        drawn=tuple(answer["drawn"]) if answer["drawn"] else None,
    )


def remove(settings: config.Settings, store: Store, text: str) -> Held:
    """Remove a set from the cache; a folder that was used where it is stays, and is only forgotten.

    Raises:
        NotFound: there is none.
        IllegalMove: a job that has not ended uses it.

    """
    chosen = find(settings, store, text)
    if chosen.live:
        raise errors.IllegalMove(
            f"The data set {chosen.hash[:12]} is in use.",
            why=f"By {_named(chosen.live)}, which has not ended.",
            hint=f"`orch wait {chosen.live[0]}`, or `orch cancel` it.",
        )
    for _ in asking.ask(settings, _MODULE, {"do": "remove", "hash": chosen.hash}):
        pass
    return chosen


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LINEFUL} more" if len(ids) > _LINEFUL else ""
    return ", ".join(ids[:_LINEFUL]) + more


def _last(settings: config.Settings, request: dict[str, object], report: Report) -> Iterator[asking.Answer]:
    """Yield the answer behind all that is said of how far things are."""
    for answer in asking.ask(settings, _MODULE, request):
        if (how_far := answer.get("progress")) is not None:
            report(how_far["done"], how_far["total"], how_far["unit"])
        else:
            yield answer


def _held(answer: dict[str, Any], store: Store, active: Sequence[Job]) -> Held:
    named = {
        name: answer[name] for name in ("hash", "counts", "bytes", "decoded", "shared", "path", "unpacked", "whole")
    }
    sources = tuple(map(masking.data, answer["sources"]))
    using = store.jobs(JobFilter(data_hash=answer["hash"], limit=JOBS_COUNTED))
    return Held(
        **named,
        sources=sources,
        classes=tuple(answer["classes"]),
        used_at=datetime.fromtimestamp(answer["used_at"], UTC),
        jobs=tuple(job.id for job in using),
        live=tuple(job.id for job in active if _uses(job, answer["hash"], sources)),
    )


def _uses(job: Job, content_hash: str, sources: tuple[str, ...]) -> bool:
    """Whether a job works on the set, or is about to: before its download it knows the source alone."""
    if job.data_hash is not None:
        return job.data_hash == content_hash
    return masking.data(job.spec.data) in sources
