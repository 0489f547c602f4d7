"""Well-known data sets by name: torchvision's table of them, and the archive that is made of their files.

Their files are downloaded like any other archive, compared with their checksums, and put into a zip archive in
ImageFolder layout, which is then unpacked, checked and kept as everybody else's is. torchvision itself cannot be used:
its classes unpickle, and they download without guard, resume or limit; a test holds the table equal to its own.
"""

import functools
import gzip
import hashlib
import io
import itertools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from orchestrator import config, failpoints
from orchestrator.core import presets
from worker.data import download, formats, once, whole
from worker.refusals import refused

#: What the names of these sets begin with.
PREFIX = presets.TORCHVISION


@dataclass(frozen=True)
class File:
    """A file of a set; torchvision has no better checksum than md5."""

    url: str
    md5: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set: its files, and what reads them. What torchvision calls test or val is the validation split."""

    files: tuple[File, ...]
    read: formats.Reader


_FLOWERS = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon
orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle,
yellow iris, globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily,
pincushion flower, fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless
gentian, artichoke, sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly,
ruby-lipped cattleya, cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword
lily, poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia,
wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow
dahlia?, cautleya spicata, japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum,
spring crocus, bearded iris, windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning
glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose,
tree mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove,
bougainvillea, camellia, mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
_WORDNET = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_DIGITS = tuple("0123456789")
#: A folder's name has no slash: torchvision says T-shirt/top.
_FASHION = (
    *("T-shirt or top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def _from(folder: str, files: dict[str, str]) -> tuple[File, ...]:
    return tuple(File(f"{folder}/{name}", md5) for name, md5 in files.items())


#: By the names of torchvision's classes.
SETS: dict[str, Known] = {
    # Of CIFAR the authors' binary form, where torchvision takes their pickles: the same pictures.
    "CIFAR10": Known(
        files=_from("https://www.cs.toronto.edu/~kriz", {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}),
        read=formats.cifar(
            names="batches.meta.txt", train="data_batch_*.bin", test="test_batch.bin", label=0, labels=1
        ),
    ),
    "CIFAR100": Known(
        files=_from(
            "https://www.cs.toronto.edu/~kriz", {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}
        ),
        read=formats.cifar(names="fine_label_names.txt", train="train.bin", test="test.bin", label=1, labels=2),
    ),
    "SVHN": Known(
        files=_from(
            "http://ufldl.stanford.edu/housenumbers",
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
        ),
        read=formats.svhn,
    ),
    "FashionMNIST": Known(
        files=_from(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            {
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
        read=formats.idx(_FASHION),
    ),
    "MNIST": Known(
        files=_from(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        ),
        read=formats.idx(_DIGITS),
    ),
    "Flowers102": Known(
        files=_from(
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
            {
                "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
                "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
                "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
            },
        ),
        read=formats.flowers(_FLOWERS.strip().replace("\n", " ").split(", ")),
    ),
    "OxfordIIITPet": Known(
        files=_from(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data",
            {
                "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
                "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
            },
        ),
        read=formats.pets,
    ),
    "Food101": Known(
        files=_from("http://data.vision.ee.ethz.ch/cvl", {"food-101.tar.gz": "85eeb15f3717b99a5da872d97d918f87"}),
        read=formats.food,
    ),
    "Imagenette": Known(
        files=_from(
            "https://s3.amazonaws.com/fast-ai-imageclas", {"imagenette2.tgz": "fe2fc210e6bb7c5664d602c3cd71e612"}
        ),
        read=formats.imagenette(_WORDNET),
    ),
}


def fetch(name: str, *, folder: Path, key: str, settings: config.Settings, report: once.Reporter) -> whole.Archive:
    """Download the files of a set into `folder` and make `key`.zip of them; names of files begin with `key`.

    What is there already and whole is not downloaded again. The caller holds a lock for `key`.

    Raises:
        StageFailed: as a download does; bad_input, where a file is not in the form that is known.

    """
    known = SETS[name]
    files, before = [], 0
    for number, file in enumerate(known.files):
        path = folder / f"{key}.{number}.file"
        if not _is_whole(path, file.md5):
            download.fetch(
                file.url,
                folder=folder,
                name=f"{key}.{number}",
                suffix=path.suffix,
                sha256=None,
                md5=file.md5,
                policy=download.Policy.of(settings),
                report=functools.partial(_report_behind, before, report),
            )
        before += path.stat().st_size
        files.append(path)
    try:
        return _packed(known.read(files), folder / f"{key}.zip", report)
    except (EOFError, LookupError, ValueError, gzip.BadGzipFile, struct.error, tarfile.TarError, zlib.error) as error:
        raise refused(
            f"The files of {PREFIX}{name} are not in the form that is known.",
            why=f"{type(error).__name__}: {error}.",
            hint="They have the right checksums: please report it.",
        ) from error


def _report_behind(before: int, report: once.Reporter, done: int, _: int | None) -> None:
    """Report the bytes of a file behind those of the files before it."""
    report(before + done, None, "bytes")


def _packed(pictures: Iterator[formats.Picture], archive: Path, report: once.Reporter) -> whole.Archive:
    """Put pictures into an archive in ImageFolder layout, numbered as they come."""
    failpoints.reach("named.pack")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for number, (split, name, picture) in zip(itertools.count(), pictures):
            content, suffix = (picture, "jpg") if isinstance(picture, bytes) else (_png(picture), "png")
            packed.writestr(f"{split}/{name.replace('/', '-')}/{number:06}.{suffix}", content)
            report(number + 1, None, "images")
    failpoints.reach("named.sum")
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    whole.note(archive, sha256)
    return whole.Archive(path=archive, sha256=sha256)


def _png(pixels: formats.Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _is_whole(path: Path, md5: str) -> bool:
    if not path.exists():
        return False
    failpoints.reach("named.look")
    return download.md5_of(path) == md5
