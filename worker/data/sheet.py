"""A contact sheet: some pictures of each class side by side."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from worker.data import imagefolder

#: Pixels: a picture's side, the gap around it, and the line of a class's name.
_SIDE, _GAP, _LINE = 112, 6, 16

#: Pictures of a class, and classes, at most.
_EACH, _CLASSES = 8, 40


def draw(layout: imagefolder.Layout, path: Path) -> tuple[int, int]:
    """Write a sheet of the train split, its kind by the ending of `path`; return its pictures and classes, counted.

    Pictures are taken from all over each class. Raises OSError, and ValueError for an ending that is no picture's.
    """
    classes = layout.classes[:_CLASSES]
    width, row = _GAP + _EACH * (_SIDE + _GAP), _LINE + _SIDE + _GAP
    sheet = Image.new("RGB", (width, _GAP + len(classes) * row), "white")
    pen, shown = ImageDraw.Draw(sheet), 0
    for label, name in enumerate(classes):
        of_class = [picture.path for picture in layout.pictures["train"] if picture.label == label]
        top = _GAP + label * row
        pen.text((_GAP, top), f"{name}  ({len(of_class):,})", fill="black")
        for column, chosen in enumerate(of_class[:: max(1, len(of_class) // _EACH)][:_EACH]):
            corner = (_GAP + column * (_SIDE + _GAP), top + _LINE)
            _place(sheet, layout.root / chosen, corner)
            shown += 1
    sheet.save(path)
    return shown, len(classes)


def _place(sheet: Image.Image, picture: Path, corner: tuple[int, int]) -> None:
    try:
        with Image.open(picture, formats=imagefolder.FORMATS) as file:
            small = ImageOps.contain(file.convert("RGB"), (_SIDE, _SIDE))
    except Exception:  # noqa: BLE001 - Pillow's decoders raise nearly everything: a grey square stands for it
        small = Image.new("RGB", (_SIDE, _SIDE), "grey")
    offset = ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2)
    sheet.paste(small, (corner[0] + offset[0], corner[1] + offset[1]))
