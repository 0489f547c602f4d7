"""The corpus of malformed inputs: each is refused in its own words, with a hint, and leaves nothing behind."""

from pathlib import Path

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs, specs, states
from orchestrator.service import jobtext
from orchestrator.store import base
from tests.faults.corpus import archives, commands, sets
from tests.integration.cli.conftest import Orch
from tests.support import pictures
from worker.data import supply


def ensure(data: object, settings: config.Settings) -> None:
    """Do what the download stage does with a job's data."""
    supply.ensure_data(specs.parse({"data": str(data)}), expected_hash=None, settings=settings, report=lambda _: None)


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
    assert len(list((settings.data_dir / "sets").iterdir())) == 1


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


@pytest.mark.parametrize("case", commands.CASES, ids=lambda case: case.name)
def test_command_line_is_refused_in_three_lines(
    case: commands.Case, orch: Orch, store: base.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(jobtext, "PIPE_PATIENCE", 0.1)
    for name, content in case.files.items():
        (here / name).write_bytes(content)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    if case.prepare is not None:
        case.prepare(here)
    before = everything(tmp_path)
    ran = orch(*case.words)
    lines = ran.err.splitlines()
    assert (ran.code, ran.out) == (case.code, ""), ran
    assert [line[:7] for line in lines] in (["error: ", "  why: ", "  try: "], ["error: ", "  try: "]), ran.err
    assert case.guard in ran.err
    assert case.hint in lines[-1]
    assert "defect" not in ran.err
    assert store.jobs(jobs.JobFilter()) == []
    assert everything(tmp_path) == before


def test_the_corpus_is_as_large_as_is_promised() -> None:
    guards = [case.guard for case in archives.CASES]
    guards += [case.guard for case in sets.CASES]
    guards += [case.guard for case in commands.CASES]
    assert len(guards) >= 300
    assert len(set(guards)) >= 150
