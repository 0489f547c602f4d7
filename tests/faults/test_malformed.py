"""The corpus of malformed inputs: each is refused in its own words, with a hint, and leaves nothing behind."""

from pathlib import Path

import pytest

from orchestrator import config, errors
from orchestrator.core import specs, states
from tests.faults.corpus import archives, sets
from tests.support import pictures
from worker.data import cache


def ensure(data: object, settings: config.Settings) -> None:
    """Do what the download stage does with a job's data."""
    cache.ensure_data(specs.parse({"data": str(data)}), expected_hash=None, settings=settings, report=lambda _: None)


def refusal(data: object, settings: config.Settings) -> errors.StageFailed:
    """Return why the job would fail."""
    with pytest.raises(errors.StageFailed) as refused:
        ensure(data, settings)
    assert refused.value.reason == states.Reason.BAD_INPUT
    assert "\n" not in refused.value.message
    return refused.value


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("case", archives.CASES, ids=lambda case: case.name)
def test_archive_is_refused_and_leaves_nothing(case: archives.Case, tmp_path: Path, settings: config.Settings) -> None:
    (tmp_path / "set.zip").write_bytes(case.data)
    before = everything(tmp_path)
    error = refusal(tmp_path / "set.zip", settings.model_copy(update={"extract_max_bytes": 100_000_000}))
    assert case.guard in f"{error.message} {error.why}"
    assert case.hint in str(error.hint)
    left = {path for path in everything(tmp_path) - before if path.is_file() and path.suffix != ".lock"}
    assert left == set()
    assert list((settings.data_dir / "sets").iterdir()) == []


def test_the_set_that_is_beside_every_fault_is_good(tmp_path: Path, settings: config.Settings) -> None:
    (tmp_path / "set.zip").write_bytes(archives.beside())
    ensure(tmp_path / "set.zip", settings)


@pytest.mark.parametrize("case", sets.CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_folder_is_refused_and_leaves_nothing(case: sets.Case, tmp_path: Path, settings: config.Settings) -> None:
    folder = pictures.image_folder(tmp_path / "set", splits={"train": 2, "validation": 1})
    case.spoil(folder)
    before = everything(tmp_path)
    error = refusal(folder, settings)
    assert case.guard in f"{error.message} {error.why}"
    assert case.hint in str(error.hint)
    assert {path for path in everything(tmp_path) - before if path.is_file() and path.suffix != ".lock"} == set()
