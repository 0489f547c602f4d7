"""Canaries: a password or token that orch was given appears nowhere but in the database and where it is used."""

import contextlib
import io
import os
import shlex
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.engine import make_url

from orchestrator import config
from orchestrator.cli import main
from orchestrator.core import jobs, specs, states, telling
from orchestrator.queue import embedded
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.test_terminal import Terminal
from tests.support import archives, httpserver, oracle, pictures, running
from tests.support.waiting import until

CANARY = "s3cr3t-canary"
DATA = f"https://{CANARY}:{CANARY}@host/pets.zip?token={CANARY}#{CANARY}"
HOOK = f"https://hooks.example.org/{CANARY}?{CANARY}"
AWAY = {
    "ORCH_DATABASE_URL": f"postgresql://orch:{CANARY}@127.0.0.1:1/orch?sslpassword={CANARY}",
    "ORCH_BROKER_URL": f"redis://orch:{CANARY}@127.0.0.1:1/0?x={CANARY}",
}
#: Flags that change what a command says.
FORMS = {"--json", "--dry-run", "--origin", "--all", "--systemd"}
#: Commands that are tried with the settings in files as well: whoever reads them does it for all.
BY_FILE = {("config", "show"), ("doctor",), ("status",), ("submit",)}
#: Commands that become a node or start one: they run in a process of their own.
NODES = {("up",), ("worker",), ("demo",)}


def commands() -> dict[tuple[str, ...], Any]:
    """Return every command that there is, by its words."""
    found: dict[tuple[str, ...], Any] = {}
    for name in main.COMMANDS:
        command = main.load(name)
        members = getattr(command, "commands", {})
        found |= {(name, member): each for member, each in members.items()}
        if not members or command.invoke_without_command:
            found[name,] = command
    return found


def spoken(words: tuple[str, ...], command: Any, job: str, picture: Path) -> Iterator[tuple[str, ...]]:
    """Yield command lines of a command: its arguments filled in, then with each of its flags that changes the form."""
    filled = {"JOB": job, "JOB...": job, "IMAGE...": str(picture), "FILE": "-"}
    arguments = [
        filled.get(parameter.metavar, "gone") for parameter in command.params if parameter.param_type_name == "argument"
    ]
    if words == ("submit",):
        arguments = ["--data", DATA]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    always = ("--yes",) if "--yes" in flags else ("--frames", "1") if "--frames" in flags else ()
    yield (*words, *always, *arguments)
    for flag in sorted(flags & FORMS):
        yield (*words, *always, flag, *arguments)
        if flag != "--json" and "--json" in flags:
            yield (*words, *always, flag, "--json", *arguments)


def on_a_terminal(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command as on a terminal, with tracebacks, and return all that it says."""
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        try:
            main.run(list(words), debug=True)
        except Exception:  # noqa: BLE001 - what --debug shows
            return terminal.getvalue() + traceback.format_exc()
    return terminal.getvalue()


def failed_job(store: base.Store) -> jobs.Job:
    """Return a job with a history, whose data has secrets in its URL."""
    tells = telling.Telling(targets=(HOOK, f"slack://{CANARY}/{CANARY}"))
    held = parts.training(store, spec=specs.parse({"data": DATA}), notify=tells)
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="a line\n"))
    store.record_steps(held, parts.losses(1, 3))
    store.record_checkpoint(held, parts.checkpoint(held, 3, epoch=1, accuracy=0.5), parts.epoch_rows(1))
    store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    while (notice := store.next_notice()) is not None:
        store.next_notice(telling.Answer(notice=notice, how="refused", why="it answers 403"), more=False)
    return store.get(held.id)


@pytest.fixture
def everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orch: Callable[..., Any]) -> Callable[..., str]:
    """Run a command line in a pipe and on a terminal, one with flags in one of them; return all that was said."""
    (tmp_path / "picture.jpg").write_bytes(pictures.encoded(pictures.noise(0)))
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "300", "NO_COLOR": "1", "ORCH_NOTIFY": HOOK}.items():
        monkeypatch.setenv(name, value)

    def run(words: tuple[str, ...]) -> str:
        ran = orch(*words) if "--json" in words or not FORMS & set(words) else None
        said = ran.out + ran.err if ran is not None else ""
        return said if "--json" in words else said + on_a_terminal(words, monkeypatch)

    return run


@pytest.mark.parametrize("words", sorted(set(commands()) - NODES), ids=" ".join)
def test_command_that_succeeds_shows_no_secret(
    words: tuple[str, ...], everywhere: Callable[..., str], store: base.Store, tmp_path: Path
) -> None:
    for line in spoken(words, commands()[words], "", tmp_path / "picture.jpg"):
        job = failed_job(store)
        said = everywhere(tuple(word or job.id for word in line))
        assert CANARY not in said, shlex.join(line)


def away() -> Iterator[Any]:
    """Yield a database or a broker that does not answer with each command, for a few in a file as well."""
    for words in sorted(set(commands()) - NODES):
        for name in (*AWAY, *(f"{name}_FILE" for name in AWAY if words in BY_FILE)):
            yield pytest.param(name, words, id=f"{name}-{' '.join(words)}")


@pytest.mark.parametrize(("name", "words"), list(away()))
@pytest.mark.usefixtures("store")  # a home with a schema, so that what fails is what is away
def test_command_that_fails_shows_no_secret(
    name: str,
    words: tuple[str, ...],
    everywhere: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = AWAY[name.removesuffix("_FILE")]
    (tmp_path / "secret").write_text(value, encoding="utf-8")
    monkeypatch.setenv(name, str(tmp_path / "secret") if name.endswith("_FILE") else value)
    for line in spoken(words, commands()[words], "@latest", tmp_path / "picture.jpg"):
        assert CANARY not in everywhere(line), shlex.join(line)


@pytest.mark.parametrize("name", sorted(AWAY))
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "amqp://orch:{}@host",
        "postgresql://orch:{}#x@host/db",
        "redis://:{}/@host:x",
        "sqlite:////nowhere/at/all?key={}",
        "postgresql://host/db?password={}&hostaddr=x",
    ],
)
def test_setting_that_cannot_be_used_shows_no_secret(
    name: str, shape: str, everywhere: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, shape.format(CANARY))
    for words in (("list",), ("config", "show"), ("doctor",), ("submit", "--data", "digits")):
        assert CANARY not in everywhere(words)


@pytest.mark.parametrize(
    "content",
    [
        f"data: [{DATA}]",
        f"data: {{a: {DATA}}}",
        f"data: 'ftp://ada:{CANARY}@host/x'",
        f"data: 'ada:{CANARY}@host/x'",
        f"data: http://ada:{CANARY}@host:x/",
        f"data: '{DATA}'\nlr: fast",
        f"data: '{DATA}\n",  # the quote is open: the parser's own words would quote the line
        f"data: {DATA}: x",
        f"data = '{DATA}",
        f"network: {DATA}",
        f"? {DATA}\n: 1",
        f"lr: {DATA}",
        f"tags: {{a: {DATA}}}",
    ],
)
def test_job_file_that_is_refused_shows_no_secret(content: str, everywhere: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "job").write_text(content, encoding="utf-8")
    for more in ((), ("--json",), ("--dry-run",)):
        said = everywhere(("submit", str(tmp_path / "job"), *more))
        assert "error: " in said or "Traceback" in said
        assert CANARY not in said


@pytest.mark.parametrize("words", sorted(NODES), ids=" ".join)
def test_node_that_cannot_start_shows_no_secret(words: tuple[str, ...], settings: config.Settings) -> None:
    for name, value in AWAY.items():
        with subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words, "--debug"],
            env={**config.child_environment(settings), name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as node:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a node whose broker is away goes on asking for it
                node.wait(timeout=6)
            node.kill()
            said, _ = node.communicate()
        assert CANARY not in said


@contextlib.contextmanager
def broker_with_password(folder: Path) -> Iterator[str]:
    """Yield the URL of a server that asks for a password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"port {port}\nbind 127.0.0.1\nrequirepass {CANARY}\nsave ''\ndir {folder}\n"
    binary = embedded.binary(config.Settings(home=folder))
    with subprocess.Popen([binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        server.stdin.write(settings.encode())
        server.stdin.close()
        try:
            yield f"redis://:{CANARY}@127.0.0.1:{port}/0"
        finally:
            server.terminate()


def arguments_of(home: Path) -> str:
    """Return the argument lists of every process of the home, as `ps` shows them to everybody."""
    said = []
    for process in running.processes_of(home):
        try:
            said.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return "\n".join(said)


def holding(folder: Path, canary: bytes) -> list[Path]:
    """Return the files below `folder`, but for the database, whose names or bytes have the canary."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("orch.db")]
    return [path for path in files if canary in path.read_bytes() or canary in os.fsencode(path)]


@pytest.mark.slow
def test_whole_life_of_a_job_leaves_no_secret_behind(tmp_path: Path, postgres_url: str) -> None:
    """With a password for the database, one for the broker, and an account and a token in the URL of the data."""
    database = make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)
    home = tmp_path / "home"
    with broker_with_password(tmp_path) as broker, httpserver.Server() as server:
        server.on(f"/pets.zip?token={CANARY}", httpserver.Reply(body=archives.zipped(pictures.members())))
        server.on(f"/gone.zip?token={CANARY}", httpserver.Reply(status=404))
        kept: dict[str, Any] = {
            "database_url": database,
            "broker_url": broker,
            "devices": "cpu",
            "allow_private_hosts": True,
            "artifacts": home / "a",
        }
        with running.installation(home, **kept) as installed:
            node = installed.start_node()
            recipe = {"network": "densenet_tiny", "image_size": 16, "epochs": 1, "crop_scale": [0.5, 1]}
            account = f"http://{CANARY}:{CANARY}@127.0.0.1:{server.port}"
            good = installed.submit(specs.parse({"data": f"{account}/pets.zip?token={CANARY}", **recipe}))
            bad = installed.submit(specs.parse({"data": f"{account}/gone.zip?token={CANARY}", **recipe}))
            until(lambda: installed.store.get(good.id).attempt > 0, seconds=60)
            assert CANARY not in arguments_of(home)
            installed.wait(good.id, states.JobState.SUCCEEDED)
            installed.wait(bad.id, states.JobState.FAILED)
            for job in (good, bad):
                ended = installed.store.get(job.id)
                said = f"{installed.log(job.id)} {installed.store.events(job.id)} {ended.error} {ended.hint}"
                assert CANARY not in said
                for words in (("status", job.id), ("status", job.id, "--json"), ("events", job.id), ("logs", job.id)):
                    ran = installed.orch(*words)
                    assert CANARY not in ran.stdout + ran.stderr
            assert any("authorization" in seen.headers for seen in server.requests)  # it was used, all the same
            oracle.holds(installed, promised=[good.id, bad.id])
            node.terminate()
            node.wait(40)
            assert holding(home, CANARY.encode()) == []
            assert holding(home, good.id.encode()) != []  # so that a search that finds nothing would be seen


@pytest.fixture(scope="module", autouse=True)
def _the_enumeration_is_whole() -> None:
    assert set(commands()) > NODES
    assert len(commands()) >= len(main.COMMANDS)
