"""A trained network as a file for others: beside it its preprocessing as JSON, and a model card."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config, errors
from orchestrator.core.jobs import Job
from orchestrator.service import asking, drafts, modelcard, query, trained
from orchestrator.store.base import Store

#: The formats, and how their files end.
FORMATS = {"safetensors": ".safetensors", "torch-export": ".pt2", "onnx": ".onnx"}

#: What ONNX takes beyond torch: to write a file, and to run it.
_ONNX = ("onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The files, and how the network in them compares with that of the job."""

    job: str
    format: str
    path: Path
    preprocessing: Path
    card: Path
    checkpoint: str  #: sha256 of the checkpoint that was exported
    bytes: int
    sha256: str
    difference: float  #: largest difference of two logits
    images: int  #: that were compared
    pictures: str  #: validation, or generated where this host has not the data


def export(
    settings: config.Settings, store: Store, text: str, *, form: str, output: Path | None = None, force: bool = False
) -> Exported:
    """Export the best checkpoint of a job, and compare the file with it; nothing is left behind where that fails.

    `output` is a file, or a folder that is there; None: the working folder. What exists is replaced with `force` only.

    Raises:
        NotFound: no such job, or a job without a checkpoint on this host.
        UsageError: the file exists, or its folder does not or cannot be looked into.
        OrchError: a package is missing, or the file says something else than the network.

    """
    job = store.find(text)
    _check_packages(form)
    with drafts.looking():
        path = _target(job, form, output, force=force)
    exported = None
    with drafts.drafts(*_files(path)) as (draft, preprocessing, card):
        for answer in trained.ask(settings, store, job, "worker.training.export", _wanted(store, job, form, draft)):
            exported = _exported(job, form, path, answer)
        if exported is None:
            raise errors.OrchError("The process of the export said nothing.")
        report = query.report(store, job.id)
        preprocessing.write_text(_json(modelcard.preprocessing(report)), encoding="utf-8")
        card.write_text(modelcard.text(report, exported), encoding="utf-8")
    return exported


def _check_packages(form: str) -> None:
    missing = [name for name in _ONNX if form == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise errors.OrchError(
            "The packages for ONNX are not installed here.",
            why=f"{' and '.join(missing)} come with the extra `onnx`.",
            hint="pip install 'orch[worker,onnx]'",
        )


def _target(job: Job, form: str, output: Path | None, *, force: bool) -> Path:
    """Return the file to make, or raise UsageError."""
    path = (output or Path()).absolute()
    if path.is_dir():
        path /= f"{job.id}{FORMATS[form]}"
    if path.suffix != FORMATS[form]:
        raise errors.UsageError(
            f"{path.name!a} does not end in {FORMATS[form]}.",
            why=f"Files of {form} do; beside it come .json and .md.",
            hint=f"-o {path.with_suffix(FORMATS[form]).name}",
        )
    if not path.parent.is_dir():
        raise errors.UsageError(f"There is no folder {path.parent}.", hint="Make it, or give another -o.")
    there = [name for name in _files(path) if name.exists()]
    if there and not force:
        raise errors.UsageError(f"{there[0]} exists.", hint="Give another -o, or --force to replace it.")
    return path


def _files(path: Path) -> tuple[Path, Path, Path]:
    return path, path.with_suffix(".json"), path.with_suffix(".md")


def _wanted(store: Store, job: Job, form: str, path: Path) -> dict[str, object]:
    kept = modelcard.preprocessing(query.report(store, job.id))
    return {"format": form, "path": str(path), "preprocessing": kept, "data_hash": job.data_hash}


def _exported(job: Job, form: str, path: Path, answer: asking.Answer) -> Exported:
    _, preprocessing, card = _files(path)
    return Exported(job=job.id, format=form, path=path, preprocessing=preprocessing, card=card, **answer)


def _json(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"
