"""Text between two markers of a page, the README unless another is given: `<!-- NAME -->` … `<!-- /NAME -->`."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def read(name: str, *, file: Path = README) -> str:
    """Return what stands between the markers called `name`; raises ValueError where they are not there."""
    return _split(file, name)[1].strip("\n")


def write(name: str, text: str, *, file: Path = README) -> None:
    """Put `text` between the markers called `name`."""
    before, _, after = _split(file, name)
    file.write_text(f"{before}{text.strip()}\n{after}", encoding="utf-8")


def _split(file: Path, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    inside, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{file.name} has no markers called {name}")
    return before + begin, inside, end + after
