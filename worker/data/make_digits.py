"""Builds digits.zip, the packaged sample: `python -m worker.data.make_digits digits.csv.gz`.

The argument is scikit-learn's `sklearn/datasets/data/digits.csv.gz`: a line for each picture, 64 shades from 0 to 16
and the digit. Every fifth picture of a digit goes to the validation split. The same input gives the same bytes.
"""

import csv
import gzip
import io
import sys
import zipfile
from collections import Counter
from pathlib import Path

from PIL import Image

ARCHIVE = Path(__file__).with_name("digits.zip")
LICENCE = Path(__file__).with_name("LICENSE.txt")

_SIDE = 8  # pixels
_DARKEST = 16
_VALIDATION_SHARE = 5  # one in so many


def main(table: Path) -> None:
    """Write the archive from scikit-learn's table."""
    seen: Counter[int] = Counter()
    with gzip.open(table, "rt", encoding="ascii") as lines, zipfile.ZipFile(ARCHIVE, "w") as archive:
        archive.writestr(zipfile.ZipInfo(LICENCE.name), LICENCE.read_bytes(), zipfile.ZIP_DEFLATED)
        for line in csv.reader(lines):
            *shades, digit = (int(float(value)) for value in line)
            split = "train" if seen[digit] % _VALIDATION_SHARE else "validation"
            name = f"{split}/{digit}/{seen[digit]:03}.png"
            archive.writestr(zipfile.ZipInfo(name), _png(shades), zipfile.ZIP_DEFLATED)
            seen[digit] += 1


def _png(shades: list[int]) -> bytes:
    pixels = bytes(shade * 255 // _DARKEST for shade in shades)
    buffer = io.BytesIO()
    Image.frombytes("L", (_SIDE, _SIDE), pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
