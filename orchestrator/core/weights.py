"""What a job's network may start from, as text: weights of ImageNet, a file, or another job's best checkpoint."""

from dataclasses import replace

from orchestrator.core import networks

#: The word for torchvision's weights.
IMAGENET = "imagenet"

#: What begins the name of another job; once the job is queued, its id stands behind it.
JOB = "job:"

#: torchvision's normalisation, with which they were trained: https://docs.pytorch.org/vision/stable/models.html
IMAGENET_FIELDS: dict[str, object] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

#: torchvision's files by the network that they are of. The digits behind the dash begin the file's sha256.
IMAGENET_FILES = {
    "densenet121_imagenet": "densenet121-a639ec97.pth",
    "densenet161_imagenet": "densenet161-8d451a50.pth",
    "densenet169_imagenet": "densenet169-b2777c0a.pth",
    "densenet201_imagenet": "densenet201-c1103571.pth",
}


def fault(text: str) -> str | None:
    """Return what is wrong with `text`, None where it can name weights."""
    if text == IMAGENET or (text.startswith("/") and "\0" not in text) or (text.startswith(JOB) and text != JOB):
        return None
    return f"weights are {IMAGENET!r}, the whole path of a file, or {JOB!r} and a job"


def is_file(text: str | None) -> bool:
    """Whether the weights are those of a file."""
    return text is not None and text.startswith("/")


def job(text: str | None) -> str | None:
    """Return the job that the weights are of; None where they are of none."""
    return text.removeprefix(JOB) if text is not None and text.startswith(JOB) else None


def imagenet_file(shape: networks.Shape) -> str | None:
    """Return the name of torchvision's file for a network of this shape; None where there is none."""
    for name, file in IMAGENET_FILES.items():
        fields = networks.NETWORKS[name]
        usual = replace(shape, stem_channels=None, reduction=0.5, bottleneck=4, **fields)
        if differences(usual, shape) == []:
            return file
    return None


def differences(theirs: networks.Shape, ours: networks.Shape) -> list[str]:
    """Return in which numbers two networks differ whose weights are to fit, each as `name: theirs, ours here`.

    Dropout has no weights, and weights do not tell its share.
    """
    pairs = {name: (getattr(theirs, name), getattr(ours, name)) for name in networks.FIELDS if name != "dropout"}
    pairs["stem_channels"] = (theirs.first_channels, ours.first_channels)
    return [f"{name}: {there}, {here} here" for name, (there, here) in pairs.items() if there != here]


def digest(file: str) -> str:
    """Return how the sha256 of a file of torchvision's begins."""
    return file.rpartition("-")[2].partition(".")[0]
