"""What goes with an exported network: how to prepare pictures for it, and its model card in Markdown.

Model cards: https://arxiv.org/abs/1810.03993. The front matter is that of Hugging Face's.
"""

import dataclasses
import re
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from orchestrator.core.jobs import Checkpoint, EpochMetric, Evaluation
from orchestrator.core.specs import JobSpec
from orchestrator.service.query import Report

if TYPE_CHECKING:
    from orchestrator.service.export import Exported

#: Raised when a key of the preprocessing is renamed or means something else.
VERSION = 1

#: Fields of the recipe that the card says elsewhere, or that say nothing of the result.
_SAID = frozenset({"data", "data_sha256", "mean", "std", "image_size", "loader_workers", "max_duration"})

#: Fields of the recipe that the card always says.
_ALWAYS = frozenset({"epochs", "batch_size", "lr", "optimizer", "seed"})

_LOADING = {
    "safetensors": """\
import json
from safetensors import safe_open
from safetensors.torch import load_file
from worker.models.densenet import DenseNet  # of orch

with safe_open("{file}", framework="pt") as file:
    kept = json.loads(file.metadata()["orch"])
network = DenseNet(num_classes=len(kept["classes"]), **kept["network"])
network.load_state_dict(load_file("{file}"))
logits = network.eval()(pictures)""",
    "torch-export": """\
import torch

network = torch.export.load("{file}").module()
logits = network(pictures)""",
    "onnx": """\
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(["logits"], {{"pictures": pictures.numpy()}})""",
}

_PREPARING = """\
import torch
from PIL import Image
from torchvision import transforms

prepare = transforms.Compose([
    transforms.Resize({resize}),
    transforms.CenterCrop({image_size}),
    transforms.ToTensor(),
    transforms.Normalize({mean}, {std}),
])
pictures = torch.stack([prepare(Image.open("picture.jpg").convert("RGB"))])"""


def preprocessing(report: Report) -> dict[str, Any]:
    """Return what turns a picture into the network's input and its logits into classes, in JSON's types."""
    spec = report.job.spec
    return {
        "version": VERSION,
        "input": {"name": "pictures", "type": "float32", "shape": ["N", 3, spec.image_size, spec.image_size]},
        "output": {"name": "logits", "type": "float32", "shape": ["N", len(classes(report))]},
        "color": "RGB",
        "resize": spec.resize,
        "interpolation": "bilinear, antialiased",
        "crop": "center",
        "image_size": spec.image_size,
        "scale": 1 / 255,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "classes": list(classes(report)),
        "network": {**dataclasses.asdict(spec.shape), "blocks": list(spec.shape.blocks)},
    }


def classes(report: Report) -> tuple[str, ...]:
    """Return the classes in the order of the logits."""
    return report.dataset.classes if report.dataset else ()


def text(report: Report, exported: "Exported") -> str:
    """Return the model card."""
    return "\n".join(_lines(report, exported)) + "\n"


def _lines(report: Report, exported: "Exported") -> Iterator[str]:
    job, spec = report.job, report.job.spec.masked()
    yield from ("---", f"library_name: {_LIBRARY[exported.format]}", "pipeline_tag: image-classification")
    yield from ("tags: [densenet, image-classification, orch]", "---", "")
    yield f"# {_plain(job.name or job.id)}"
    yield ""
    yield f"{spec.network} for {len(classes(report))} classes: {', '.join(map(_plain, classes(report)))}."
    yield from ("", "## Network", "")
    yield from _table(_network(report))
    yield from ("", "## Data", "")
    yield from _table(_data(report))
    yield from ("", "## Results", "")
    yield from _results(report, exported)
    yield from ("", "## Recipe", "", "Fields that differ from orch's defaults, and the most important others:", "")
    yield from _table(_recipe(spec))
    yield from ("", "## Files", "")
    yield from _table(_files(exported))
    yield from ("", "## Use", "", "Prepare pictures:", "", "```python")
    yield _PREPARING.format(resize=spec.resize, image_size=spec.image_size, mean=spec.mean, std=spec.std)
    yield from ("```", "", "Run the network; any number of pictures goes in at once:", "", "```python")
    yield _LOADING[exported.format].format(file=exported.path.name)
    yield from (
        "```",
        "",
        f"The softmax of the logits gives probabilities, in the order of `classes` in `{exported.preprocessing.name}`.",
    )
    yield from ("", "## Limits", "")
    yield "The figures are those of one validation split: nothing is known of other pictures, or of other classes."


_LIBRARY = {"safetensors": "safetensors", "torch-export": "pytorch", "onnx": "onnx"}


def _network(report: Report) -> Iterator[tuple[str, object]]:
    spec = report.job.spec
    yield "name", spec.network
    yield from dataclasses.asdict(spec.shape).items()
    yield "picture", f"{spec.image_size} x {spec.image_size}"
    if spec.weights is not None:
        yield "started from", spec.weights


def _data(report: Report) -> Iterator[tuple[str, object]]:
    yield "source", report.job.spec.masked().data
    if report.dataset is not None:
        yield from ((f"{split} pictures", count) for split, count in report.dataset.counts.items())
        yield "content sha256", report.dataset.hash
    yield "mean, std", f"{report.job.spec.mean}, {report.job.spec.std}"


def _results(report: Report, exported: "Exported") -> Iterator[str]:
    evaluation = report.evaluation
    if evaluation is not None and evaluation.checkpoint_sha256 == exported.checkpoint:
        yield _measured(evaluation)
        yield ""
        yield "| class | precision | recall | pictures |"
        yield "|---|---|---|---|"
        yield from _per_class(evaluation)
        return
    epoch = _epoch(report, exported.checkpoint)
    if epoch is None:
        yield "This checkpoint has not been measured."
        return
    yield _measured(epoch)


def _measured(result: Evaluation | EpochMetric) -> str:
    return f"Accuracy {result.accuracy:.4f}, loss {result.loss:.4f} on {result.images} validation pictures."


def _per_class(evaluation: Evaluation) -> Iterator[str]:
    rows = zip(evaluation.classes, evaluation.precision, evaluation.recall, evaluation.confusion, strict=True)
    for name, precision, recall, counts in rows:
        yield f"| {_plain(name)} | {precision:.4f} | {recall:.4f} | {sum(counts)} |"


def _checkpoint(report: Report, sha256: str) -> Checkpoint | None:
    return next((point for point in report.checkpoints if point.sha256 == sha256), None)


def _epoch(report: Report, sha256: str) -> EpochMetric | None:
    point = _checkpoint(report, sha256)
    closed = point.epoch if point is not None and point.accuracy is not None else None
    return next((row for row in report.epochs if row.split == "val" and row.epoch == closed), None)


def _recipe(spec: JobSpec) -> Iterator[tuple[str, object]]:
    usual = JobSpec.model_fields
    for name, value in spec:
        if name in _SAID or name in dataclasses.asdict(spec.shape) or name in {"network", "weights"}:
            continue
        if value != usual[name].default or name in _ALWAYS:
            yield name, value


def _files(exported: "Exported") -> Iterator[tuple[str, object]]:
    yield exported.path.name, f"{exported.format}, {exported.bytes:,} bytes, sha256 {exported.sha256}"
    yield exported.preprocessing.name, "preprocessing and classes; the network's file holds it as well"
    yield "checkpoint", f"of job {exported.job}, sha256 {exported.checkpoint}"
    yield (
        "compared with it",
        f"{exported.images} {exported.pictures} pictures, logits differ by {exported.difference:.2g} at most",
    )
    yield "made by", f"orch {metadata.version('orch')}"


def _table(rows: Iterator[tuple[str, object]]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        if value is None:
            continue
        said = ", ".join(map(str, value)) if isinstance(value, tuple | list) else value
        yield f"| {_plain(name)} | {_plain(str(said))} |"


def _plain(text: str) -> str:
    """Return text from elsewhere as a line of Markdown that means itself."""
    return re.sub(r"([\\`*{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))
