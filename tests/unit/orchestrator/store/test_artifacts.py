import os
import shutil
from pathlib import Path

import pytest

from orchestrator.store import artifacts, sql
from tests.contract import parts


def folder(root: Path, name: str) -> Path:
    made = root / name / "attempt-0001"
    made.mkdir(parents=True)
    (made / "weights").write_text("some")
    return made.parent


def test_a_root_keeps_its_id(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    assert artifacts.known_id(root) is None
    made = artifacts.root_id(root)
    assert artifacts.root_id(root) == artifacts.known_id(root) == made
    assert artifacts.root_id(tmp_path / "other") != made


def test_only_folders_of_deleted_jobs_are_swept(store: sql.SqlStore, tmp_path: Path) -> None:
    gone, kept = parts.submit(store), parts.submit(store)
    store.delete(gone.id, actor="ada")
    folders = [folder(tmp_path, name) for name in (gone.id, kept.id, "zzzzzzzz", "something else")]
    assert artifacts.sweep(store, tmp_path) == [gone.id]
    assert [path.exists() for path in folders] == [False, True, True, True]
    assert artifacts.sweep(store, tmp_path / "missing") == []


def test_a_folder_that_cannot_be_removed_is_swept_later(
    store: sql.SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = parts.submit(store)
    store.delete(gone.id, actor="ada")
    folder(tmp_path, gone.id)

    def refuse(_: Path) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert artifacts.sweep(store, tmp_path) == []
    assert artifacts.sweep(store, tmp_path) == [gone.id]


def test_a_draft_that_a_killed_node_left_goes(tmp_path: Path) -> None:
    made = artifacts.root_id(tmp_path)
    (tmp_path / ".orch-root.0a1b2c3d").write_text("another", encoding="ascii")
    assert artifacts.root_id(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == [".orch-root"]


def test_a_node_whose_draft_another_removes_takes_the_others_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(draft: Path, path: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        made.append(artifacts.root_id(tmp_path))
        link(draft, path)

    made: list[str] = []
    monkeypatch.setattr(os, "link", late)
    assert artifacts.root_id(tmp_path) == made[0]


def test_files_that_are_removed_during_a_walk_are_left_out(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "file").touch()
    walk = artifacts.files_below(tmp_path)
    folders.remove(next(walk).parent)  # the others have been listed, and not looked into
    for folder in folders:
        shutil.rmtree(folder)
    assert list(walk) == []
    assert list(artifacts.files_below(folders[0])) == []
