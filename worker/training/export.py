"""`python -m worker.training.export`: a checkpoint's network as a file for others, compared before anybody hears of it.

The file takes pictures as float32 (N, 3, side, side), prepared as its preprocessing says, and gives logits (N, classes)
for any N.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from orchestrator import config, errors
from worker import answers
from worker.data import loader, supply
from worker.models import densenet
from worker.training import asked, checkpoint

#: What maps pictures to logits.
Network = Callable[[Tensor], Tensor]

#: Pictures that are compared, and in what batches: none of these sizes may be a part of the file.
BATCHES = (1, 2, 5, 16)

#: Largest difference of two logits, as a share of the largest logit (of 1 at least): other kernels add up in another
#: order, and float32 has seven digits.
TOLERANCE = 1e-4

#: Name of the preprocessing in the metadata of each kind of file.
KEY = "orch"

_INPUT, _OUTPUT = "pictures", "logits"


class Request(asked.Request):
    """Which checkpoint, and what to make of it: a new file at `path`."""

    format: Literal["safetensors", "torch-export", "onnx"]
    path: Path
    preprocessing: dict[str, Any]
    data_hash: str


def main() -> int:
    """Answer the request on standard input."""
    return asked.serve(Request, lambda request, saved, say: say(export(request, saved)))


def export(request: Request, saved: checkpoint.Checkpoint) -> answers.Answer:
    """Write the file, compare what it says with what the network says, and return how they compare.

    Raises:
        OrchError: the file cannot be written, or says something else; then there is none.

    """
    network = asked.network(request, saved)
    write, load = _FORMATS[request.format]
    try:
        with _quiet():
            write(network, request)
            size, digest = _read_back(request.path)
            difference, images, kind = _compare(network, load(request), request)
    except OSError as error:
        request.path.unlink(missing_ok=True)
        raise errors.OrchError(f"{request.path} cannot be written.", why=error.strerror or str(error)) from error
    except BaseException:
        request.path.unlink(missing_ok=True)
        raise
    found = {"checkpoint": request.sha256, "bytes": size, "sha256": digest}
    return found | {"difference": difference, "images": images, "pictures": kind}


def _read_back(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _compare(network: Network, exported: Network, request: Request) -> tuple[float, int, str]:
    """Return the largest difference of their logits, on how many pictures, and whether these are of the data set."""
    batches, kind = _pictures(request)
    largest, count = 0.0, 0
    for pictures in batches:
        with torch.inference_mode():
            ours = network(pictures)
        theirs = exported(pictures)
        if theirs.shape != ours.shape:
            raise errors.OrchError(
                "The exported file gives another shape.", why=f"{tuple(theirs.shape)} instead of {tuple(ours.shape)}."
            )
        difference, most = (theirs - ours).abs().max().item(), TOLERANCE * max(1.0, ours.abs().max().item())
        if not difference <= most:  # NaN is no agreement
            raise errors.OrchError(
                "The exported file does not say what the network says.",
                why=f"Their logits differ by {difference:.3g} on {kind} pictures; at most {most:.3g} was expected.",
                hint="Try another --format, and report this: it is a defect.",
            )
        largest, count = max(largest, difference), count + len(pictures)
    return largest, count, kind


def _pictures(request: Request) -> tuple[Iterator[Tensor], Literal["validation", "generated"]]:
    """Return batches of pictures of the validation split where this host has it, else of noise."""
    data = supply.here(request.spec, request.data_hash, settings=config.load())
    if data is not None:
        return _of_split(loader.SeededImageFolder(data, request.spec, "val")), "validation"
    side, noise = request.spec.image_size, torch.Generator().manual_seed(request.spec.seed)
    return (torch.randn(size, 3, side, side, generator=noise) for size in BATCHES), "generated"


def _of_split(split: loader.SeededImageFolder) -> Iterator[Tensor]:
    """Yield batches of pictures from all over the split, each of another size."""
    step, at = max(1, len(split) // sum(BATCHES)), 0
    for size in BATCHES:
        chosen = range(at * step, min((at + size) * step, len(split)), step)
        if not chosen:
            return
        yield torch.stack([split[0, index][0] for index in chosen])
        at += size


def _unlearning(network: nn.Module) -> Network:
    @torch.inference_mode()
    def run(pictures: Tensor) -> Tensor:
        logits: Tensor = network(pictures)
        return logits

    return run


def _example(request: Request) -> Tensor:
    side = request.spec.image_size
    return torch.zeros(2, 3, side, side)


def _program(network: nn.Module, request: Request) -> torch.export.ExportedProgram:
    return torch.export.export(
        network, (_example(request),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )


def _write_safetensors(network: nn.Module, request: Request) -> None:
    kept = json.dumps(request.preprocessing)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    request.path.write_bytes(safetensors.torch.save(weights, {KEY: kept}))


def _load_safetensors(request: Request) -> Network:
    with safetensors.safe_open(request.path, framework="pt") as file:
        kept = json.loads(file.metadata()[KEY])
    network = densenet.DenseNet(num_classes=len(kept["classes"]), **kept["network"])
    network.load_state_dict(safetensors.torch.load_file(request.path))
    return _unlearning(network.eval())


def _write_program(network: nn.Module, request: Request) -> None:
    kept = {f"{KEY}.json": json.dumps(request.preprocessing)}
    torch.export.save(_program(network, request), request.path, extra_files=kept)


def _load_program(request: Request) -> Network:
    return _unlearning(torch.export.load(request.path).module())


def _write_onnx(network: nn.Module, request: Request) -> None:
    program = torch.onnx.export(
        _program(network, request), dynamo=True, input_names=[_INPUT], output_names=[_OUTPUT], verbose=False
    )
    if program is None:
        raise errors.OrchError("torch.onnx made no program.")
    program.model.metadata_props[KEY] = json.dumps(request.preprocessing)
    program.save(str(request.path), external_data=False)


def _load_onnx(request: Request) -> Network:
    import onnxruntime  # noqa: PLC0415 - an extra of its own

    session = onnxruntime.InferenceSession(str(request.path), providers=["CPUExecutionProvider"])

    def run(pictures: Tensor) -> Tensor:
        (logits,) = session.run([_OUTPUT], {_INPUT: pictures.numpy()})
        return torch.from_numpy(logits)

    return run


_FORMATS: dict[str, tuple[Callable[[nn.Module, Request], None], Callable[[Request], Network]]] = {
    "safetensors": (_write_safetensors, _load_safetensors),
    "torch-export": (_write_program, _load_program),
    "onnx": (_write_onnx, _load_onnx),
}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what libraries will rename: nothing that the caller could change
        yield


if __name__ == "__main__":
    sys.exit(main())
