"""Backups that somebody has changed, or that are none: what `orch restore` refuses."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from orchestrator import config
from orchestrator.service import archive, backup, schema
from tests.integration.cli.backup.conftest import files_of
from tests.integration.cli.conftest import Orch

Change = Callable[[dict[str, Any], dict[str, bytes]], None]


def forged(source: Path, target: Path, change: Change, *, kind: str = backup.KIND) -> Path:
    """Write a backup whose manifest and parts somebody has changed, and who knows how digests are made."""
    with zipfile.ZipFile(source) as whole:
        inside = {name: whole.read(name) for name in whole.namelist()}
    manifest = json.loads(inside.pop("manifest.json"))
    change(manifest, inside)

    class Said(archive.Head):
        model_config = pydantic.ConfigDict(extra="allow")

    with archive.writing(target, kind=kind, force=True) as writer:
        made = {name: writer.add(name, [content]).model_dump() for name, content in inside.items()}
        for table in manifest["tables"]:
            table["part"] = made.get(table["part"]["name"], table["part"])
        if manifest["listing"]:
            manifest["listing"] = made.get(manifest["listing"]["name"], manifest["listing"])
        writer.end(Said.model_validate({"format": 1, "orch": "0"} | manifest))
    return target


def _rename_file(to: str) -> Change:
    def change(_: dict[str, Any], inside: dict[str, bytes]) -> None:
        name = next(name for name in inside if name.endswith(".safetensors"))
        inside[f"artifacts/{to}"] = inside.pop(name)
        listing = (
            inside["artifacts.jsonl"].decode().replace(json.dumps(name.removeprefix("artifacts/")), json.dumps(to))
        )
        inside["artifacts.jsonl"] = listing.encode()

    return change


def _say(**fields: Any) -> Change:
    return lambda manifest, _: manifest.update(fields)


def _lose(name: str) -> Change:
    return lambda _, inside: inside.__delitem__(name)


def _put(name: str, content: bytes) -> Change:
    return lambda _, inside: inside.update({name: content})


def _other_table(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["tables"][0]["name"] = "events"


FORGED: dict[str, tuple[Change, str]] = {
    "path-up": (_rename_file("aaaaaaaa/../../evil"), "no path of a job's file"),
    "path-absolute": (_rename_file("/etc/evil"), "no path of a job's file"),
    "path-root": (_rename_file(".orch-root"), "no path of a job's file"),
    "path-short": (_rename_file("abc/evil"), "no path of a job's file"),
    "path-backslash": (_rename_file("aaaaaaaa/..\\evil"), "no path of a job's file"),
    "path-control": (_rename_file("aaaaaaaa/a\nb"), "no path of a job's file"),
    "path-long": (_rename_file(f"aaaaaaaa/{'x' * 300}"), "no path of a job's file"),
    "path-double": (_rename_file("aaaaaaaa//evil"), "no path of a job's file"),
    "format": (_say(format=2), "is of format 2; this orch reads 1"),
    "newer": (_say(revision="9999"), "schema version 9999"),
    "revision": (_say(revision="../x"), "revision"),
    "strange": (_say(evil=1), "evil"),
    "database": (_say(database="mongodb"), "database"),
    "moment": (_say(made_at="2026-11-29T12:00:00"), "made_at"),
    "count": (_say(files=7), "counts other files"),
    "root": (_say(root=None), "files of no folder"),
    "missing": (_lose("tables/events.jsonl"), "is missing"),
    "extra": (_put("tables/evil.jsonl", b"[]"), "of which its manifest says nothing"),
    "list": (_put("artifacts.jsonl", b"{}"), "list of files cannot be read"),
    "rows": (_put("tables/events.jsonl", b"[1]\n"), "a row of events cannot be read"),
    "orphans": (_put("tables/jobs.jsonl", b""), "not there"),
    "table": (_other_table, "another name than its part"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_backup_is_refused_and_leaves_nothing(
    whole: Path, there: config.Settings, orch: Orch, tmp_path: Path, name: str
) -> None:
    change, why = FORGED[name]
    forged(whole, tmp_path / "forged.zip", change)
    ran = orch("--home", str(there.home), "restore", str(tmp_path / "forged.zip"))
    assert ran.code == (4 if name == "newer" else 1)
    assert why in ran.err
    assert "Traceback" not in ran.err
    assert schema.current(there)[0] is None
    assert not list(tmp_path.rglob("evil*"))
    if name not in {"rows", "orphans"}:  # what only the database sees comes behind the files
        assert files_of(there.home).keys() <= {"run/node.lock"}


def _flipped(content: bytes) -> bytes:
    middle = content.index(b"weights of") + 5
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _bomb(whole: Path, file: Path) -> None:
    """Write an archive of which a part unpacks to more than its manifest says."""
    forged(whole, file, _put("tables/events.jsonl", b""))
    with zipfile.ZipFile(file) as one:
        comment, inside = one.comment, {name: one.read(name) for name in one.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as one:
        for name, part in inside.items():
            one.writestr(name, bytes(10**7) if name == "tables/events.jsonl" else part)
        one.comment = comment


def _twice(whole: Path, file: Path) -> None:
    shutil.copy(whole, file)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as more:
        more.writestr("manifest.json", "{}")


def _some_zip(_: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("manifest.json", "{}")


BROKEN: dict[str, Callable[[Path, Path], object]] = {
    "empty": lambda _, file: file.touch(),
    "text": lambda _, file: file.write_text("orch backup"),
    "cut": lambda whole, file: file.write_bytes(whole.read_bytes()[:-100]),
    "flipped": lambda whole, file: file.write_bytes(_flipped(whole.read_bytes())),
    "zip": _some_zip,
    "bundle": lambda whole, file: forged(whole, file, lambda *_: None, kind="orch bundle"),
    "folder": lambda _, file: file.mkdir(),
    "gone": lambda *_: None,
    "twice": _twice,
    "bomb": _bomb,
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_backup_is_refused(
    whole: Path, there: config.Settings, orch: Orch, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "bad.zip"
    BROKEN[what](whole, file)
    ran = orch("--home", str(there.home), "restore", str(file))
    assert ran.code == (3 if what == "gone" else 1)
    assert "Traceback" not in ran.err
    assert "error:" in ran.err
    assert files_of(there.home).keys() <= {"run/node.lock"}
