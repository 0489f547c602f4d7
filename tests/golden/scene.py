"""An installation in which nothing is left to chance, and every command that prints JSON there.

Ids are counted, time is moved by hand, and what other processes would answer is written down here.
"""

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.cli import main
from orchestrator.core import findings, ids, jobs, provenance, resources, specs, states
from orchestrator.core.dependencies import Dependency
from orchestrator.service import (
    asking,
    audit,
    backupviews,
    bell,
    bundleviews,
    careviews,
    catalogviews,
    checks,
    context,
    dataviews,
    doctor,
    outlookviews,
    provenanceviews,
    queueviews,
    resultviews,
    schema,
    trainedviews,
    views,
    weightfile,
)
from orchestrator.store import artifacts, sql
from tests.conftest import HandClock
from tests.contract import parts

#: Stands for the folder of the installation, which is another one each time.
HOME = "/home/ada"

#: Ids, in the order in which the jobs are submitted.
DONE, RIVAL, RUNNING, WAITING, FAILED = (f"{number:08d}" for number in range(1, 6))

DATA = "d" * 64
CLASSES = ("cat", "dog")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, and what it prints."""

    payload: type[views.Payload]
    words: tuple[str, ...]
    code: int = 0
    fold: Callable[[Any], Any] = lambda printed: printed  #: leaves out what says nothing about the payload


def _case(payload: type[views.Payload], *words: str, **options: Any) -> Case:
    return Case(payload=payload, words=words, **options)


def _without_specs(printed: Any) -> Any:
    """Return the payload with a word for each spec: `submit --dry-run` and `show` have it."""
    if isinstance(printed, dict):
        return {
            name: "as `orch show --json` prints it" if name == "spec" else _without_specs(value)
            for name, value in printed.items()
        }
    return [_without_specs(value) for value in printed] if isinstance(printed, list) else printed


def _without_moment(printed: Any) -> Any:
    return printed | {"bytes": 5000, "made_at": "2026-11-24T12:00:00Z"}


def _without_sizes(printed: Any) -> Any:
    """Return the payload of a backup without what depends on other cases, the schema or the clock."""
    fixed = {"bytes": 100_000, "made_at": "2026-11-24T12:00:00Z", "rows": 100, "revision": "0006"}
    return printed | {"backup": printed["backup"] | fixed}


def _two_settings(printed: Any) -> Any:
    return printed | {"settings": [one for one in printed["settings"] if one["name"] in {"home", "lease"}]}


def _first_of(name: str) -> Callable[[Any], Any]:
    return lambda printed: printed | {name: printed[name][:1]}


#: By the name of the file. Those that change anything come last.
CASES: dict[str, Case] = {
    "status": _case(views.OverviewPayload, "status", fold=_without_specs),
    "status-job": _case(views.ReportPayload, "status", DONE, fold=_without_specs),
    "list": _case(views.JobsPayload, "list", fold=_without_specs),
    "top": _case(queueviews.TopPayload, "top", fold=_without_specs),
    "why": _case(queueviews.WhyPayload, "why", WAITING, fold=_without_specs),
    "worker-list": _case(queueviews.WorkerPayload, "worker", "list"),
    "events": _case(views.EventPayload, "events", DONE),
    "logs": _case(views.LogPayload, "logs", DONE),
    "wait": _case(views.JobPayload, "wait", FAILED, code=5, fold=_without_specs),
    "show": _case(provenanceviews.SpecPayload, "show", DONE),
    "show-env": _case(provenanceviews.ProvenancePayload, "show", DONE, "--env"),
    "verify-resume": _case(provenanceviews.VerdictPayload, "verify-resume", DONE, code=1),
    "bundle": _case(bundleviews.BundlePayload, "bundle", DONE, "-o", "first.zip", fold=_without_moment),
    "reproduce": _case(bundleviews.ReproductionPayload, "reproduce", "first.zip", "--verdict", DONE),
    "compare": _case(resultviews.ComparisonPayload, "compare", DONE, RIVAL),
    "plot": _case(resultviews.CurvesPayload, "plot", DONE, "--metric", "val_accuracy"),
    "confusion": _case(resultviews.ConfusionPayload, "confusion", DONE),
    "samples": _case(resultviews.SamplePayload, "samples", DONE),
    "predict": _case(trainedviews.PredictionPayload, "predict", DONE, "cat.png", "broken.png", code=1),
    "evaluate": _case(trainedviews.MeasuredPayload, "evaluate", DONE),
    "export": _case(trainedviews.ExportPayload, "export", DONE),
    "data-list": _case(dataviews.HeldsPayload, "data", "list"),
    "data-add": _case(dataviews.HeldPayload, "data", "add", "digits"),
    "data-verify": _case(dataviews.ExaminedPayload, "data", "verify", DATA, code=1),
    "doctor": _case(careviews.DoctorPayload, "doctor", code=1),
    "audit": _case(careviews.AuditPayload, "doctor", "--audit", code=1),
    "backup": _case(backupviews.BackupPayload, "backup", "all.zip", fold=_without_sizes),
    "restore": _case(
        backupviews.RestorePayload, "--home", "new", "restore", "--dry-run", "all.zip", fold=_without_sizes
    ),
    "gc": _case(careviews.GarbagePayload, "gc", "--dry-run"),
    "config-show": _case(careviews.SettingsPayload, "config", "show", fold=_two_settings),
    "db-current": _case(careviews.SchemaPayload, "db", "current"),
    "models": _case(catalogviews.ModelsPayload, "models", fold=_first_of("models")),
    "recipes": _case(catalogviews.RecipesPayload, "recipes", fold=_first_of("recipes")),
    "submit-dry-run": _case(outlookviews.ResolvedPayload, "submit", "--dry-run", "--data", "digits"),
    "submit": _case(views.SubmittedPayload, "submit", "--data", "digits", "--name", "sixth", fold=_without_specs),
    "watch": _case(views.JobPayload, "watch", DONE, fold=_without_specs),
    "clone": _case(views.SubmittedPayload, "clone", DONE, "--lr", "0.01", fold=_without_specs),
    "cancel": _case(views.JobPayload, "cancel", WAITING, fold=_without_specs),
    "delete": _case(views.DeletedPayload, "delete", FAILED, "--yes"),
}


@contextlib.contextmanager
def scene(folder: Path, migrated: Path) -> Iterator[Callable[[Case], list[Any]]]:
    """Make the installation below a folder, from a copy of a migrated database; yields what a case prints there."""
    clock, number = HandClock(), iter(range(1, 100))
    settings = config.Settings(home=folder / "orch", lock_dir=folder / "locks", user="ada")
    with pytest.MonkeyPatch.context() as changing:
        for name in ("home", "lock_dir", "user"):
            changing.setenv(config.variable(name), str(getattr(settings, name)))
        changing.setenv(config.variable("broker_url"), "redis://127.0.0.1:1/0")  # where nobody listens
        changing.chdir(folder)
        changing.setattr(ids, "new_id", lambda: f"{next(number):08d}")
        changing.setattr(context, "open_store", functools.partial(sql.open_store, clock=clock))
        changing.setattr(asking, "ask", functools.partial(_answer, folder))
        changing.setattr(bell, "PATIENCE", 60)  # what the broker says is printed, not how slow the machine is
        changing.setattr(weightfile, "pieces", lambda path, **_: iter([path.name.encode()]))
        changing.setattr(doctor, "examine", lambda _: iter(_CHECKS))
        changing.setattr(audit, "audit", lambda *_: [_FINDING])
        changing.setattr(schema, "current", lambda _: ("0004", "0005"))
        sql.make_home(settings)
        (settings.home / "orch.db").write_bytes(migrated.read_bytes())
        with contextlib.closing(sql.open_store(settings, clock=clock)) as store:
            _populate(store, settings, clock)
        for picture in ("cat.png", "broken.png"):
            (folder / picture).touch()
        yield functools.partial(_printed, folder)


def _printed(folder: Path, case: Case) -> list[Any]:
    """Return the documents that a case prints, folded, or the lines of a stream."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run([*case.words, "--json"])
    text = out.getvalue().replace(str(folder), HOME)
    assert code == case.code, f"{case.words} ended with {code}: {err.getvalue()}"
    whole = [text] if text.startswith("{\n") else text.splitlines()
    return [case.fold(json.loads(one)) for one in whole]


def _populate(store: sql.SqlStore, settings: config.Settings, clock: HandClock) -> None:
    store.register(
        jobs.Worker(
            identity=parts.identity(),
            state=states.WorkerState.ACTIVE,
            devices=("CPU",),
            versions={"orch": "0.1.0", "torch": "2.14.1"},
            artifact_root=parts.ROOT,
            started_at=clock.now() - timedelta(hours=1),
            beat=0,
            beat_at=clock.now(),
            slots=resources.ONE_CPU.devices,
            labels=("lab=a",),
        )
    )
    _succeed(store, settings, clock, accuracies=(0.5, 0.75), name="first", tags=("pets",), provenance=_PROVENANCE)
    _succeed(store, settings, clock, accuracies=(0.6,), name="rival", spec=_spec(epochs=1, lr=1e-3))
    (settings.artifact_dir / artifacts.ROOT_ID_FILE).write_text("root-b")
    held = parts.training(store, name="third", spec=_spec(epochs=4))
    _epoch(store, clock, held, 1, accuracy=0.5)
    progress = jobs.Progress(done=15, total=40, unit="steps", epoch=2, epochs=4, rate=50.0, at=clock.now())
    store.record_progress(held, progress)
    parts.submit(store, name="fourth", spec=_spec(), after=(Dependency(needs=held.id, rule=states.After.OK),))
    parts.submit(store, name="fifth", spec=_spec())
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.failed(states.Reason.BAD_INPUT))


def _spec(**fields: Any) -> specs.JobSpec:
    return specs.parse({"data": "digits", "epochs": 2, **fields})


def _succeed(
    store: sql.SqlStore, settings: config.Settings, clock: HandClock, *, accuracies: tuple[float, ...], **fields: Any
) -> None:
    """Bring a job through its three stages; of its best checkpoint there is a file."""
    fields = {"spec": _spec(), **fields}
    parts.submit(store, **fields)
    held = parts.claimed(store, states.Stage.DOWNLOAD)
    store.record_dataset(
        held,
        jobs.Dataset(
            hash=DATA, source="digits", classes=CLASSES, counts={"train": 100, "val": 20}, bytes=4096, path="sets/d"
        ),
    )
    clock.move(seconds=2)
    store.finish(held, parts.DONE)
    held = parts.claimed(store, states.Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    store.record_environment(held, parts.ENVIRONMENT)
    for epoch, accuracy in enumerate(accuracies, 1):
        _epoch(store, clock, held, epoch, accuracy=accuracy)
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="epoch 1\nepoch 2\n"))
    store.finish(held, parts.DONE)
    held = parts.claimed(store, states.Stage.EVALUATE)
    best = next(point for point in held.checkpoints if point.best)
    file = settings.artifact_dir / best.path
    file.parent.mkdir(parents=True)
    file.touch()
    store.record_evaluation(
        held,
        jobs.Evaluation(attempt=held.attempt, checkpoint_step=best.step, checkpoint_sha256=best.sha256, **_MEASURED),
    )
    clock.move(seconds=1)
    store.finish(held, parts.DONE)


def _epoch(store: sql.SqlStore, clock: HandClock, held: jobs.Claim, epoch: int, *, accuracy: float) -> None:
    clock.move(seconds=3)
    usage = jobs.Usage(cores=1.5, memory=2**30, waiting=0.25)
    rows = [
        jobs.EpochMetric(**{**vars(row), "usage": usage if row.split == "train" else None})
        for row in parts.epoch_rows(epoch, accuracy=accuracy)
    ]
    store.record_checkpoint(held, parts.checkpoint(held, 10 * epoch, accuracy=accuracy, epoch=epoch), rows)


_PROVENANCE = provenance.Provenance(
    origins={"epochs": "--epochs"},
    source=provenance.Source(
        commit="c" * 40, branch="main", dirty=True, diff="-a\n+b\n", diff_sha256="e" * 64, diff_bytes=6
    ),
)

_MEASURED: dict[str, Any] = {
    "loss": 0.5,
    "accuracy": 0.75,
    "images": 20,
    "classes": CLASSES,
    "precision": (0.8, 0.7),
    "recall": (0.8, 0.7),
    "confusion": ((8, 2), (3, 7)),
    "seconds": 0.5,
}

_CHECKS = (
    checks.Check(name="disk", level=checks.Level.OK, found="71.8 GiB free"),
    checks.Check(name="broker", level=checks.Level.FAIL, found="embedded does not answer", fix="`orch up -d`"),
)

_FINDING = findings.Finding(kind=findings.Kind.LEFTOVER, job=DONE, sentence="no checkpoint is kept in it")

_COMPARED = {
    "first_step": 0,
    "last_step": 20,
    "losses": 20,
    "loss": {"step": 12, "recorded": 0.5, "replayed": 0.25},
    "tensors": ["model.linear.bias"],
    "elsewhere": ["threads: 1, before 2"],
}

_HELD = {
    "hash": DATA,
    "sources": ["digits"],
    "classes": CLASSES,
    "counts": {"train": 100, "val": 20},
    "bytes": 4096,
    "decoded": 12288,
    "shared": 1,
    "path": "/data/sets/d",
    "unpacked": True,
    "whole": True,
    "used_at": 1_795_000_000,
}


def _answer(folder: Path, _: config.Settings, module: str, request: Mapping[str, Any]) -> Iterator[asking.Answer]:
    """Answer for a worker's module."""
    match module.rpartition(".")[2], request.get("do"):
        case "predict", _:
            yield {"image": f"{folder}/cat.png", "predictions": [{"class": "cat", "probability": 0.75}]}
            yield {"image": f"{folder}/broken.png", "error": "is not a picture"}
        case "evaluate", _:
            measured = _MEASURED | {"checkpoint_step": 20, "checkpoint_sha256": f"{20:064x}"}
            yield {"source": "digits", "hash": DATA, "evaluation": measured}
        case "garbage", _:
            left = {"kind": "ended attempts", "path": f"{folder}/orch/artifacts/{DONE}", "bytes": 1000, "job": DONE}
            yield {"item": {**left, "removable": True, "removed": False, "why": "no checkpoint is kept in it"}}
        case "replay", _:
            yield {"compared": _COMPARED}
        case "samples", _:
            names = {"image": "validation/cat/1.png", "true": "cat", "predicted": "dog"}
            yield {**names, "probability": 0.75, "true_probability": 0.25}
        case "export", _:
            Path(request["path"]).touch()
            same = {"checkpoint": f"{20:064x}", "difference": 0.0, "images": 16, "pictures": "validation"}
            yield {**same, "bytes": 1000, "sha256": "f" * 64}
        case _, "examine":
            faults = {"found": "0" * 64, "faults": ["train/cat/1.png: is not a picture"]}
            twins = [{"train": ["train/cat/2.png"], "val": ["validation/cat/2.png"]}]
            yield {**faults, "by_class": {"train": [50, 50], "val": [10, 10]}, "duplicates": twins, "drawn": None}
        case _:
            yield _HELD
