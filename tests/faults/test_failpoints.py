"""Every call that can fail has a failpoint before it, and every failpoint is one of the registry."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import failpoints
from orchestrator.store import migrations, sql

ROOT = Path(__file__).parents[2]
CORE = (
    "orchestrator/draining.py",
    "orchestrator/store",
    "orchestrator/queue",
    "orchestrator/service",
    "worker",
    "orchestrator/disk.py",
)

#: Calls of files, databases, networks and processes, by their last name.
CALLS = frozenset(
    [
        "accept",
        "bind",
        "chmod",
        "connect",
        "create_connection",
        "fchmod",
        "fork",
        "fsync",
        "link",
        "llen",
        "lpush",
        "listen",
        "mkdir",
        "open",
        "ping",
        "read_bytes",
        "read_text",
        "recv_bytes",
        "recv_fds",
        "rename",
        "replace",
        "rmtree",
        "send_bytes",
        "send_fds",
        "sendall",
        "shutdown",
        "sync_folder",
        "touch",
        "unlink",
        "write_bytes",
        "write_text",
        "Popen",
    ]
)

#: Functions without a place of their own, and why.
EXCEPTIONS = {
    "orchestrator/disk.py:sync_folder": "its callers name the places",
    "orchestrator/queue/embedded.py:_cleared": "every failure means that the server has not gone yet",
    "orchestrator/queue/embedded.py:_kill_hung": "every failure means that there is none to kill",
    "orchestrator/queue/embedded.py:_last_line": "words for an error that is raised already",
    "orchestrator/service/batches.py:_limit": "reads /sys",
    "orchestrator/service/archive.py:_drafted": "a person's own file: what fails leaves none under its name",
    "orchestrator/service/archive.py:writing": "the same",
    "orchestrator/service/archive.py:_open": "a person's own file, all of it read before anything is stored",
    "orchestrator/service/bundle.py:_file": "a person's own file: what fails leaves no bundle",
    "orchestrator/service/completion.py:jobs": "completion of words at a prompt: every failure is an empty list",
    "orchestrator/service/drafts.py:drafts": "a person's own files, apart from the queue: what fails leaves none",
    "orchestrator/service/export.py:export": "a person's own files, apart from the queue: what fails leaves none",
    "orchestrator/service/files.py:kind": "reads /proc",
    "orchestrator/service/health.py:broker": "a question for people: every failure is an answer",
    "orchestrator/service/health.py:_connect": "the same",
    "orchestrator/service/health.py:_unix": "the same",
    "orchestrator/service/jobtext.py:content": "a person's own file, read before anything is stored",
    "orchestrator/service/leftovers.py:_fault": "the audit only looks: what it cannot read, it says",
    "orchestrator/service/leftovers.py:_held": "the same",
    "orchestrator/service/leftovers.py:process_in": "the same",
    "orchestrator/service/node.py:_read_pid": "behind up.pid; every failure means that there is none",
    "orchestrator/service/node.py:_no_start": "words for an error that is raised already",
    "orchestrator/service/recipes.py:load": "reads the package's own files, named before anything is stored",
    "orchestrator/service/reproduce.py:_sha256": "a question: what cannot be read is not the file that is looked for",
    "orchestrator/service/reproduce.py:_processor": "reads /proc",
    "orchestrator/service/reproduce.py:_own_start": "a person's own file: what fails leaves none, and queues nothing",
    "orchestrator/service/weightfile.py:pieces": "read for a digest or a person's own file: what fails leaves none",
    "orchestrator/store/engine.py:_connected": "`_transaction`, its one caller, has it",
    "orchestrator/store/postgres.py:_connect": "the same, which comes to it through SQLAlchemy",
    "orchestrator/store/postgres.py:engine": "listens to events of SQLAlchemy, no socket",
    "orchestrator/store/sqlite.py:_connect": "under the transaction's own place",
    "orchestrator/store/sqlite.py:engine": "listens to events of SQLAlchemy, no socket",
    "worker/app.py:_serve": "connects a signal of Celery, no socket",
    "worker/data/cache.py:manifests": "a person's question: what cannot be read is left out",
    "worker/data/cache.py:records": "the same",
    "worker/data/cache.py:remove": "a person's wish: what stays of it `clear_up` removes",
    "worker/data/crews.py:_by_threads": "shuts down its own pool of threads",
    "worker/data/crews.py:close": "the same",
    "worker/data/decoded.py:close": "the same",
    "worker/data/decoded.py:forget": "a person's wish: what stays of it is no set that any job would look for",
    "worker/data/formats.py:_idx": "calls `_opened`, which has it",
    "worker/data/formats.py:_members": "the same",
    "worker/data/imagefolder.py:examine": "shuts down its own pool of threads",
    "worker/data/imagefolder.py:_fault": "opens bytes that are in memory",
    "worker/data/sheet.py:_place": "a person's pictures: a grey square stands for what cannot be read",
    "worker/data/makers.py:__init__": "a process of the training's own: without it the attempt fails as for any error",
    "worker/data/makers.py:_make": "the end of a pipe to the training, whose death ends it",
    "worker/data/makers.py:ask": "`take` says what became of the process",
    "worker/data/makers.py:take": "its process is killed by tests/unit/worker/data/test_makers.py",
    "worker/data/make_digits.py:main": "builds the packaged sample, once, by hand",
    "worker/data/pixels.py:_by_pillow": "the same",
    "worker/data/urls.py:_connect": "under download.connect, whose tries it shares",
    "worker/forkserver.py:_work": "opens /dev/null",
    "worker/garbage.py:_of_bundles": "a person's wish: what stays of it the next one finds",
    "worker/garbage.py:_of_compiled": "the same",
    "worker/identity.py:_state_and_start": "reads /proc",
    "worker/identity.py:_boot_id": "reads /proc",
    "worker/identity.py:_made": "`held`, its one caller, has it",
    "worker/node.py:_beat": "calls `health.touch`, which has it",
    "worker/models/fused.py:built": "every failure is a reason not to compile, which is told",
    "worker/models/fused.py:__init__": "the same",
    "worker/models/fused.py:key": "the same",
    "worker/processor.py:_told": "reads /proc",
    "worker/presence.py:forget": "the last act of a node: what stays behind is removed by the next one",
    "worker/training/__main__.py:assignment": "the engine by itself: no queue, no promise",
    "worker/training/compiling.py:_own": "every failure is a reason not to compile, which is told",
    "worker/training/export.py:export": "a person's own file: it is compared before it gets its name",
    "worker/training/export.py:_read_back": "the same",
    "worker/training/export.py:_write_safetensors": "the same",
    "worker/training/saving.py:__exit__": "shuts down its own thread",
    "worker/training/samples.py:_square": "draws a person's own file",
}

#: What `durable.write` reaches, behind the name it is given.
DURABLE = ("open", "write", "fsync", "rename", "folder")


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function of the core that is not inside another one, with its name in the list above."""
    for folder in CORE:
        for path in sorted((ROOT / folder).rglob("*.py")) or [ROOT / folder]:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for body in (tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))):
                for node in body:
                    if isinstance(node, ast.FunctionDef):
                        yield f"{path.relative_to(ROOT)}:{node.name}", node


def calls(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def can_fail(function: ast.FunctionDef) -> bool:
    # One argument: text's `replace` has two, and a moment's has names.
    return any(name in CALLS and (name != "replace" or len(call.args) == 1) for name, call in calls(function))


def places_of(function: ast.FunctionDef) -> set[str]:
    """Return the places that a function reaches by their whole names."""
    found = set()
    for name, call in calls(function):
        first = call.args[0] if call.args else None
        if name == "reach" and isinstance(first, ast.Constant):
            found.add(str(first.value))
        for keyword in call.keywords:
            if keyword.arg == "place" and isinstance(keyword.value, ast.Constant) and "durable" in ast.unparse(call):
                found |= {f"{keyword.value.value!s}.{step}" for step in DURABLE}
    return found


def reaches(function: ast.FunctionDef) -> bool:
    return any(name == "reach" or "durable.write" in ast.unparse(call.func) for name, call in calls(function))


def test_every_call_that_can_fail_has_a_failpoint() -> None:
    bare = {name for name, function in functions() if can_fail(function) and not reaches(function)}
    assert bare - set(EXCEPTIONS) == set(), "add failpoints.reach(…) before the call, and its place to the registry"
    assert set(EXCEPTIONS) - bare == set(), "no exception any more"


def test_registry_and_uses_agree() -> None:
    used = [place for _, function in functions() for place in places_of(function)]
    of_transactions = {place for place in failpoints.PLACES if re.match(r"(store|schema)\..*\.", place)}
    assert set(used) | of_transactions == set(failpoints.PLACES)
    assert len(used) == len(set(used)), "a place means one call"


def test_every_method_of_the_store_that_writes_has_three_places() -> None:
    assert migrations.HEAD
    names = {name for name in dir(sql.SqlStore) if hasattr(getattr(sql.SqlStore, name), "__wrapped__")}
    writing = {place.split(".")[1] for place in failpoints.PLACES if re.match(r"store\..*\.commit$", place)}
    assert writing <= {name.lstrip("_") for name in names}
    assert {"finish", "claim", "submit", "record_checkpoint", "take_back", "register"} <= writing
    assert len(failpoints.PLACES) >= 100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(failpoints, "folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(("action", "error"), [("enospc", OSError), ("eio", OSError), ("raise", RuntimeError)])
def test_an_armed_place_acts_once(action: str, error: type[Exception], folder: Path) -> None:
    (folder / "pid.write").write_text(action)
    with pytest.raises(error, match=r"pid\.write"):
        failpoints.reach("pid.write")
    assert failpoints.reach("pid.write") is False
    assert [file.name for file in folder.iterdir()] == ["pid.write.fired"]


def test_each_who_comes_by_takes_a_line(folder: Path) -> None:
    (folder / "pid.write").write_text("pass\npass\nraise\n")
    assert [failpoints.reach("pid.write"), failpoints.reach("pid.write")] == [False, False]
    with pytest.raises(RuntimeError, match=r"pid\.write"):
        failpoints.reach("pid.write")
    assert [file.name for file in folder.iterdir()] == ["pid.write.fired"]


def test_a_line_for_each_stays(folder: Path) -> None:
    (folder / "pid.write").write_text("each raise")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"pid\.write"):
            failpoints.reach("pid.write")
    assert [file.name for file in folder.iterdir()] == ["pid.write"]


def test_only_a_place_armed_with_nan_spoils_a_value(folder: Path) -> None:
    (folder / "train.loss").write_text("nan")
    (folder / "pid.write").write_text("sleep 0")
    assert [failpoints.reach("train.loss"), failpoints.reach("pid.write")] == [True, False]


def test_nothing_happens_outside_of_tests() -> None:
    assert failpoints.folder() is None
    assert failpoints.reach("pid.write") is False
