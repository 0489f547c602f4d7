"""What `--json` prints is what it printed before: documents, and the shape of every payload."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import payloads
from orchestrator.service import views
from tests.golden import files, scene, shapes

WRITE = "run `make golden`, and look at what it changes"


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, migrated_file: Path
) -> Iterator[Callable[[scene.Case], list[Any]]]:
    """What each command prints; all in one installation, in their order."""
    with scene.scene(tmp_path_factory.mktemp("golden"), migrated_file) as printing:
        answers = {name: printing(case) for name, case in scene.CASES.items()}
        yield lambda case: next(answers[name] for name, known in scene.CASES.items() if known is case)


@pytest.mark.parametrize("name", scene.CASES)
def test_a_command_prints_what_it_printed(name: str, printed: Callable[[scene.Case], list[Any]]) -> None:
    case = scene.CASES[name]
    assert files.answer(case, printed(case)) == files.read(files.ANSWERS, name), WRITE


@pytest.mark.parametrize("name", sorted(files.models()))
def test_a_payload_has_the_shape_it_had(name: str) -> None:
    assert files.shape(files.models()[name]) == files.read(files.SHAPES, name), WRITE


def test_no_shape_breaks_without_another_version() -> None:
    assert files.refused() == []


def test_every_payload_is_printed_by_a_command_and_documented() -> None:
    assert {case.payload for case in scene.CASES.values()} == set(shapes.payloads().values())
    assert all(model.__doc__ for model in shapes.payloads().values())
    assert {file.stem for file in files.ANSWERS.iterdir()} == set(scene.CASES)
    assert {file.stem for file in files.SHAPES.iterdir()} == set(files.models())


def test_the_page_of_all_payloads_is_that_of_the_code() -> None:
    assert payloads.PAGE.read_text(encoding="utf-8") == payloads.page(), WRITE


class _Part(views.Part):
    gone: int
    other: str | None
    same: tuple[float, ...]


class _Later(views.Part):
    other: int | None
    same: tuple[float, ...]
    new: dict[str, _Part]


def test_what_readers_would_miss_is_found_and_what_is_new_harms_nobody() -> None:
    before, after = shapes.shape(_Part), shapes.shape(_Later)
    assert after["new{}.same[]"] == "number"
    assert shapes.broken(before, after) == [
        "gone: integer became nothing",
        "other: string or null became integer or null",
    ]
