import re
from pathlib import Path

import pytest

from docs import markers, settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_settings_in_the_readme_are_those_of_the_code() -> None:
    assert markers.read("settings") == settings.table(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text("utf-8")):
        path = target[0] or target[1]
        assert path.startswith("https://") or (page.parent / path).exists(), path


def test_readme_names_targets_that_make_knows() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make (\w+)`|^make (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= targets
