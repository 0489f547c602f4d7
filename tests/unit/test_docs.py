import re
from pathlib import Path
from typing import Any

import pytest

from docs import markers, settings
from orchestrator.cli import main
from orchestrator.core import specs
from orchestrator.service import models, recipes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_settings_of_their_page_are_those_of_the_code() -> None:
    assert markers.read("settings", file=settings.PAGE) == settings.table(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text("utf-8")):
        path = target[0] or target[1]
        assert path.startswith("https://") or (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https:)([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are called in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_names_targets_that_make_knows() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make (\w+)`|^make (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= targets


def test_pages_name_commands_and_options_that_there_are() -> None:
    known = {name: command_options(main.load(name)) for name in main.COMMANDS}
    for page in PAGES:
        for name, rest in re.findall(r"(?:`|\$ )orch ([a-z]+(?:-[a-z]+)*)([^`\n]*)", page.read_text("utf-8")):
            assert name in known, f"{page.name}: orch {name}"
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
                assert option in known[name], f"{page.name}: orch {name} {option}"


def command_options(command: Any) -> set[str]:
    """Return the options of a command and of those below it."""
    own = {spelling for parameter in command.params for spelling in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(command_options, getattr(command, "commands", {}).values()))


def test_networks_page_has_the_table_of_orch_models() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs/networks.md").read_text("utf-8").splitlines() if "px," in line]
    told = [(name.strip("| `"), number, macs) for name, _, _, number, macs, _ in rows]
    known = models.models()
    assert told == [(model.name, f"{model.parameters:,}", f"{(model.macs or 0) / 1e9:.3f} G") for model in known]


def test_every_recipe_is_in_its_page() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `([a-z][a-z-]*)` \|", page, re.MULTILINE)) == recipes.names()


def test_every_field_of_the_recipes_page_is_a_flag() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    known = {name.replace("_", "-") for name in specs.JobSpec.model_fields} | {"recipe", "dry-run"}
    assert set(re.findall(r"--([a-z][a-z-]*)", page)) <= known
