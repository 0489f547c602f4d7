"""Weights from outside: files are read as data, their names are made ours, and what does not fit is named.

The one file that may call `torch.load`, with `weights_only`: it builds tensors and plain containers, and nothing else.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from orchestrator import errors, failpoints
from worker.models import densenet
from worker.refusals import refused

Tensors = dict[str, torch.Tensor]

#: The classifier's names: it is made anew for the classes of the data.
HEAD = "linear."

#: Names that a message lists; the others are counted.
_NAMED = 4

#: Words under which trainings put a state_dict beside other things.
_WRAPPERS = ("state_dict", "model", "model_state_dict")

#: torchvision's names, and ours with the number of the block, counted from 0, and of the layer.
_BLOCK = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.(norm1|conv1|norm2|conv2)\.(\w+)")
_TRANSITION = re.compile(r"features\.transition(\d+)\.(norm|conv)\.(\w+)")
_ENDS = {
    "features.conv0.": "conv1.",
    "features.norm0.": "stem.0.",
    "features.norm5.": "features.bn.",
    "classifier.": HEAD,
}
_IN_LAYER = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5}
_IN_TRANSITION = {"norm": 0, "conv": 2}  # a ReLU stands between them


def read(path: Path, *, sha256: str | None = None) -> Tensors:
    """Return the tensors of a safetensors file, of a checkpoint of orch's, or of a state_dict that torch.save wrote.

    `sha256` is the file's digest, or how it begins: it is compared before anything is made of the bytes.

    Raises:
        StageFailed: bad_input, when the file is another or holds no weights.

    """
    try:
        failpoints.reach("weights.read")
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:  # any other is the host's: tried again
        raise _refused(f"{path} cannot be read.", why=f"{error.strerror}.") from error
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(sha256 or ""):
        raise _refused(f"{path} is not the file that was asked for.", why=f"Its sha256 is {found}, not {sha256}.")
    try:
        tensors = _unwrapped(_parsed(content))
    except ValueError as error:
        raise _refused(f"{path} holds no weights.", why=f"{error}.") from error
    return _of_model(tensors)


def start(network: densenet.DenseNet, tensors: Tensors, *, head: bool, source: str) -> None:
    """Put weights into the network, all but the classifier unless `head` is to come along.

    BatchNorm's counters of batches may be missing: they were not always saved, and nothing depends on them.

    Raises:
        StageFailed: bad_input, naming what does not fit; then the network is as it was.

    """
    state = network.state_dict()
    given = {name: value for name, value in renamed(tensors, network).items() if head or not name.startswith(HEAD)}
    wanted = {name: value for name, value in state.items() if head or not name.startswith(HEAD)}
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    wrong = [f"{name} is missing" for name in needed if name not in given]
    wrong += [f"{name} is none of the network's" for name in given if name not in wanted]
    wrong += [
        f"{name} is {_sides(value)}, not {_sides(wanted[name])}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    wrong += [f"{name} is not finite" for name, value in given.items() if not value.isfinite().all()]
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise refused(
            f"The weights of {source} do not fit the network.",
            why="; ".join(wrong[:_NAMED]) + more + ".",
            hint="Name the network that they are of: `orch models` lists them; torchvision's end in _imagenet.",
        )
    network.load_state_dict(state | given)


def renamed(tensors: Tensors, network: densenet.DenseNet) -> Tensors:
    """Return the tensors under our names, where torchvision's are known."""
    blocks = sum(name.startswith("dense_block") for name, _ in network.features.named_children())
    return {_ours(name, blocks): value for name, value in tensors.items()}


def _ours(name: str, blocks: int) -> str:
    # Until 2018 the layers' modules were called norm.1, conv.1 and so on: the files from then still have these names.
    name = re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name)
    for theirs, ours in _ENDS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if found := _BLOCK.fullmatch(name):
        block, layer = int(found[1]) - 1, int(found[2]) - 1
        kind = "dense_block_layer_" if block < blocks - 1 else "dense_block"
        return f"features.{kind}{block}.bottle_neck_layer_{layer}.bottle_neck.{_IN_LAYER[found[3]]}.{found[4]}"
    if found := _TRANSITION.fullmatch(name):
        return f"features.transition_layer_{int(found[1]) - 1}.down_sample.{_IN_TRANSITION[found[2]]}.{found[3]}"
    return name


def _parsed(content: bytes) -> Any:
    if content[8:9] == b"{":  # https://huggingface.co/docs/safetensors: the header's length, then the header in JSON
        try:
            return safetensors.torch.load(content)
        except safetensors.SafetensorError as error:
            raise ValueError("it is no whole safetensors file") from error
    _require_plain(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251 - see above
    except Exception as error:  # its unpickler raises nearly everything on what is no state_dict
        raise ValueError("it is neither a safetensors file nor a state_dict of tensors alone") from error


def _require_plain(content: bytes) -> None:
    """Raise ValueError for a packed archive: torch.save packs nothing, and a few bytes could unpack to any number."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise ValueError("it is a damaged archive") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is a packed archive, which torch.save does not write")
    if sum(member.file_size for member in members) > len(content):
        raise ValueError("it says that it is larger than it is")


def _unwrapped(found: Any) -> Tensors:
    for word in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(word), Mapping):
            found = found[word]
            break
    if not isinstance(found, Mapping) or not found:
        raise ValueError("it holds no names and tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError("it holds something else than names and tensors")  # noqa: TRY004 - of the file, not the code
    return {name.removeprefix("module."): value for name, value in found.items()}  # of DataParallel


def _of_model(tensors: Tensors) -> Tensors:
    """Return the weights of a checkpoint of orch's, their running average where it has one; else all that there is."""
    for part in ("ema.", "model."):
        weights = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
        if weights:
            return weights
    return tensors


def _sides(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _refused(message: str, *, why: str) -> errors.StageFailed:
    return refused(message, why=why, hint="Give a .safetensors file, or a state_dict that torch.save has written.")
