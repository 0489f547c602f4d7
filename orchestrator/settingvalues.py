"""What the value of a setting may be, by kind."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.core import limits

#: What Python makes of bytes in a path that are no UTF-8.
_SURROGATES = re.compile("[\ud800-\udfff]")


def _placed(path: Path) -> Path:
    try:
        whole = path.expanduser().absolute()
    except RuntimeError:
        raise ValueError("its ~ names a user who is not known here") from None
    if "\0" in str(whole):
        raise ValueError("it holds a zero byte")
    if _SURROGATES.search(str(whole)):
        raise ValueError("it is no utf-8 text")
    return whole


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be one line of printable characters")
    return text


#: A path that means the same to every process, whatever its working directory.
Place = Annotated[Path, AfterValidator(_placed)]

#: Up to a month: what waits longer has been forgotten, and clocks overflow somewhere.
Seconds = Annotated[float, Field(gt=0, le=31 * 24 * 3600)]

Word = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


def _named(limits: dict[str, int]) -> dict[str, int]:
    if not all(name and name.isprintable() and "," not in name for name in limits):
        raise ValueError("it must be like *=2,ada=4")
    return limits


#: How many for each name, as a table or as `name=count,…`.
Limit = Annotated[dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(limits.pairs), AfterValidator(_named)]
