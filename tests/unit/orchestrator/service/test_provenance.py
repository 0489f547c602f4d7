"""Git is asked about real repositories, and whatever is wrong with it is a remark."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import provenance as rules
from orchestrator.service import provenance


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git has as long as a slow machine takes."""
    monkeypatch.setattr(provenance, "PATIENCE", 60)


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "below").mkdir(parents=True)
    (folder / "train.py").write_text("lr = 1\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "begin")
    monkeypatch.chdir(folder / "below")
    return folder


def asked(settings: config.Settings, **fields: str) -> rules.Source:
    found = provenance.here(settings.model_copy(update=fields), {}).source
    assert found is not None
    return found


def test_a_clean_folder_is_its_commit(repository: Path, settings: config.Settings) -> None:
    (repository / "new").write_text("not added")
    head = git(repository, "rev-parse", "HEAD").strip()
    assert asked(settings) == rules.Source(commit=head, branch="main", dirty=False)


def test_what_is_not_committed_can_be_applied_elsewhere(repository: Path, settings: config.Settings) -> None:
    (repository / "train.py").write_text("lr = 2  # größer\n", encoding="utf-8")
    (repository / "picture").write_bytes(bytes(range(256)))
    git(repository, "add", "picture")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.noprefix", "true")
    found = asked(settings)
    assert (found.dirty, found.remark) == (True, None)
    assert found.diff is not None
    assert found.diff_sha256 == hashlib.sha256(found.diff.encode()).hexdigest()
    assert found.diff_bytes == len(found.diff.encode())
    git(repository, "reset", "-q", "--hard")
    subprocess.run(["git", "apply"], cwd=repository, input=found.diff.encode(), check=True)
    assert (repository / "train.py").read_text("utf-8") == "lr = 2  # größer\n"
    assert (repository / "picture").read_bytes() == bytes(range(256))


def test_of_a_large_difference_the_digest_is_kept(
    repository: Path, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "LARGEST_DIFF", 1000)
    (repository / "train.py").write_text("x\n" * 1000)
    found = asked(settings)
    whole = subprocess.run(["git", "diff", "HEAD"], cwd=repository, check=True, capture_output=True).stdout
    assert (found.diff, found.diff_bytes) == (None, len(whole))
    assert found.diff_sha256 == hashlib.sha256(whole).hexdigest()
    assert "is not kept" in str(found.remark)


def test_secrets_and_foreign_bytes_are_replaced_and_told(repository: Path, settings: config.Settings) -> None:
    (repository / "train.py").write_bytes(b'password = "canary"\n# \xff\n')
    found = asked(settings)
    assert "canary" not in str(found.diff)
    assert found.remark == "what looks like a secret is masked in 1 line; bytes that are no text are replaced"


def test_the_setting_says_how_much_is_kept(repository: Path, settings: config.Settings) -> None:
    (repository / "train.py").write_text("lr = 3\n")
    assert (asked(settings, git="commit").dirty, asked(settings, git="commit").diff) == (True, None)
    assert provenance.here(settings.model_copy(update={"git": "off"}), {}).source is None


def test_a_folder_in_no_repository_has_no_source(settings: config.Settings, tmp_path: Path) -> None:
    with provenance.asked(settings, tmp_path) as question:
        assert question is None


def test_a_repository_without_a_commit(
    settings: config.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert asked(settings) == rules.Source(branch="main" if asked(settings).branch == "main" else "master", dirty=False)


def test_git_that_is_missing_slow_or_broken_is_a_remark(
    repository: Path, settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "_GIT", ("no-such-git",))
        assert asked(settings) == rules.Source(remark="git cannot be asked: No such file or directory")
        patch.setattr(provenance, "_GIT", (str(slow),))
        patch.setattr(provenance, "PATIENCE", 0.1)
        assert asked(settings) == rules.Source(remark="git did not answer within 0.1 s")
    (repository / ".git" / "HEAD").write_text("nonsense")
    assert str(asked(settings).remark).startswith("git: fatal: ")
