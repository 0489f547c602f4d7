"""Text between two markers of the README: `<!-- NAME -->` … `<!-- /NAME -->`."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def read(name: str) -> str:
    """Return what stands between the markers called `name`; raises ValueError where they are not there."""
    return _split(name)[1].strip("\n")


def write(name: str, text: str) -> None:
    """Put `text` between the markers called `name`."""
    before, _, after = _split(name)
    README.write_text(f"{before}{text.strip()}\n{after}", encoding="utf-8")


def _split(name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = README.read_text(encoding="utf-8").partition(begin)
    inside, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"README.md has no markers called {name}")
    return before + begin, inside, end + after
