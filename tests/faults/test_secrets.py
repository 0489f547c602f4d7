"""Canaries: a password or token that orch was given appears nowhere but in the database and where it is used."""

import functools
import io
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator import config, errors
from orchestrator.cli import main
from orchestrator.core import jobs, specs, states, telling
from orchestrator.store import base, sql
from tests.contract import parts
from tests.integration.cli.test_terminal import Terminal
from tests.support import archives, asked, httpserver, pictures
from worker.data import download, sources, supply

CANARY = "s3cr3t-canary"
DATA = f"https://{CANARY}:{CANARY}@127.0.0.1:1/pets.zip?token={CANARY}#{CANARY}"  # nobody listens
HOOK = f"https://hooks.example.org/{CANARY}?{CANARY}"
AWAY = {
    "ORCH_DATABASE_URL": f"postgresql://orch:{CANARY}@127.0.0.1:1/orch?sslpassword={CANARY}",
    "ORCH_BROKER_URL": f"redis://orch:{CANARY}@127.0.0.1:1/0",
}
#: Flags that change what a command says.
FORMS = {"--json", "--dry-run", "--origin", "--all", "--systemd"}
#: Commands that are tried with the settings in files as well: whoever reads them does it for all.
BY_FILE = {("config", "show"), ("doctor",), ("status",), ("submit",)}
#: Commands that become a node or start one: they run in a process of their own.
NODES = {("up",), ("worker",), ("demo",)}


@functools.cache
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


def spoken(words: tuple[str, ...], command: Any, given: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield command lines of a command: its arguments filled in, then with each of its flags that changes the form."""
    arguments = [
        given.get(parameter.metavar, "gone") for parameter in command.params if parameter.param_type_name == "argument"
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


def given(job: str, folder: Path, **more: str) -> dict[str, str]:
    """Return what stands for each argument."""
    return {"JOB": job, "JOB...": job, "IMAGE...": str(folder / "picture.jpg"), "FILE": "-", "SOURCE": DATA, **more}


@dataclass(frozen=True)
class Said:
    """All that a command line said, with its exit codes: in a pipe, and on a terminal with --debug."""

    text: str = ""
    codes: tuple[int, ...] = ()

    def __add__(self, other: "Said") -> "Said":
        return Said(self.text + other.text, self.codes + other.codes)


def on_a_terminal(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command as on a terminal, with the tracebacks of errors of our own: another one is a defect."""
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        try:
            code = main.run(list(words), debug=True)
        except errors.OrchError as error:
            return Said(terminal.getvalue() + traceback.format_exc(), (error.exit_code,))
        except typer.TyperException:
            return Said(terminal.getvalue() + traceback.format_exc(), (errors.UsageError.exit_code,))
    return Said(terminal.getvalue(), (code,))


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
def everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orch: Callable[..., Any]) -> Callable[..., Said]:
    """Run a command line in a pipe and on a terminal, one with flags in one of them."""
    monkeypatch.chdir(tmp_path)  # some write a file
    (tmp_path / "picture.jpg").write_bytes(pictures.encoded(pictures.noise(0)))
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "300", "NO_COLOR": "1", "ORCH_NOTIFY": HOOK}.items():
        monkeypatch.setenv(name, value)

    def run(words: tuple[str, ...]) -> Said:
        said = Said()
        if "--json" in words or not FORMS & set(words):
            ran = orch(*words)
            said += Said(ran.out + ran.err, (ran.code,))
        return said if "--json" in words else said + on_a_terminal(words, monkeypatch)

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for data at this host, where nobody listens, and do not wait between the tries; no process is started."""
    of = download.Policy.of
    monkeypatch.setenv(config.variable("allow_private_hosts"), "1")
    monkeypatch.setattr(download.Policy, "of", lambda settings: replace(of(settings), first_backoff=0))
    asked.here(monkeypatch)


@dataclass(frozen=True)
class Held:
    """A data cache with a set, whose URL has secrets, and with a part of it that nobody goes on with."""

    folder: Path
    url: str
    shown: str
    hash: str


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    chosen = config.Settings(home=tmp_path_factory.mktemp("held"), allow_private_hosts=True)
    with httpserver.Server() as server:
        server.on(f"/pets.zip?token={CANARY}", httpserver.Reply(body=archives.zipped(pictures.members(size=(8, 8)))))
        place = f"127.0.0.1:{server.port}/pets.zip"
        url = f"http://{CANARY}:{CANARY}@{place}?token={CANARY}#{CANARY}"
        spec = specs.parse({"data": url})
        found = supply.ensure_data(spec, expected_hash=None, settings=chosen, report=lambda _: None)
    (chosen.data_dir / "archives" / f"{sources.parse(url).key}.part").write_bytes(b"half")
    return Held(chosen.data_dir, url, f"http://***@{place}?***", found.hash)


def seed(store: base.Store, settings: config.Settings, held: Held) -> None:
    """Put in place what commands about this host show or remove."""
    shutil.copytree(held.folder, settings.data_dir, dirs_exist_ok=True)
    gone = parts.submit(store)
    attempt = settings.artifact_dir / gone.id / "attempt-0001"
    attempt.mkdir(parents=True)
    (attempt / "log.txt").write_bytes(b"a line")
    store.delete(gone.id, actor="ada")


#: Exit codes of commands that refuse what they are asked here, or end with that of the job.
CODES: dict[tuple[str, ...], int] = {
    **dict.fromkeys([("backup",), ("bundle",), ("cancel",), ("pause",), ("resume",), ("verify-resume",)], 1),
    **dict.fromkeys([("compare",), ("extend",), ("help",), ("priority",), ("recipes",), ("schema",), ("tag",)], 2),
    **dict.fromkeys([("confusion",), ("evaluate",), ("export",), ("predict",), ("samples",)], 3),
    **dict.fromkeys([("reproduce",), ("restore",)], 3),
    **dict.fromkeys([("worker", "drain"), ("worker", "forget"), ("worker", "resume")], 3),
    **dict.fromkeys([("wait",), ("watch",)], 5),
}
#: What some commands are about; `{}` is the source of the data set that is here.
ABOUT = {
    ("data", "add"): ("{}",),
    ("data", "list"): ("{}",),
    ("gc",): ("partial download", "deleted job"),
    ("verify-resume",): ("https://***@127.0.0.1:1/pets.zip?*** cannot be downloaded",),
}
#: Commands that need no database.
OFFLINE = {("config", "paths"), ("config", "show"), ("down",), ("init",), ("models",)}


@pytest.mark.parametrize("words", sorted(set(commands()) - NODES), ids=" ".join)
@pytest.mark.usefixtures("impatient")
def test_command_that_succeeds_shows_no_secret(
    words: tuple[str, ...],
    everywhere: Callable[..., Said],
    *,
    store: sql.SqlStore,
    settings: config.Settings,
    held: Held,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = given("", tmp_path, SET=held.hash, SOURCE=held.url)
    for line in spoken(words, commands()[words], there):
        job = failed_job(store)
        seed(store, settings, held)
        with monkeypatch.context() as patch:
            if line[:2] == ("verify-resume", "--json"):  # once with the real process
                asked.elsewhere(patch)
            said = everywhere(tuple(word or job.id for word in line))
        assert CANARY not in said.text, shlex.join(line)
        code = CODES.get(words, 0)
        if "--dry-run" in line and code == errors.IllegalMove.exit_code:  # which is told of, and no more
            code = 0
        assert said.codes[0] == code, (shlex.join(line), said.text)  # the second finds what the first has left
        for about in ABOUT.get(words, ()):
            assert about.format(held.shown) in said.text


def away() -> Iterator[Any]:
    """Yield a database or a broker that does not answer with each command, for a few in a file as well."""
    for words in sorted(set(commands()) - NODES):
        for name in (*AWAY, *(f"{name}_FILE" for name in AWAY if words in BY_FILE)):
            yield pytest.param(name, words, id=f"{name}-{' '.join(words)}")


@pytest.mark.parametrize(("name", "words"), list(away()))
@pytest.mark.usefixtures("store", "impatient")  # a home with a schema, so that what fails is what is away
def test_command_that_fails_shows_no_secret(
    name: str,
    words: tuple[str, ...],
    everywhere: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = AWAY[name.removesuffix("_FILE")]
    (tmp_path / "secret").write_text(value, encoding="utf-8")
    monkeypatch.setenv(name, str(tmp_path / "secret") if name.endswith("_FILE") else value)
    for line in spoken(words, commands()[words], given("@latest", tmp_path)):
        said = everywhere(line)
        assert CANARY not in said.text, shlex.join(line)
        if name.startswith("ORCH_DATABASE_URL"):
            offline = words in OFFLINE or (words == ("submit",) and "--dry-run" in line)
            assert (0 in said.codes) is offline, (shlex.join(line), said.codes)
        assert words != ("doctor",) or 0 not in said.codes


@pytest.mark.parametrize("name", sorted(AWAY))
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "amqp://orch:{}@host",
        "postgresql://orch:{}#x@host/db",
        "redis://:{}/@host:x",
        "redis://host/0?password={}",
        "sqlite:////dev/null/at/all?key={}",
        "postgresql://host/db?password={}&hostaddr=x",
    ],
)
@pytest.mark.filterwarnings("ignore:Query string argument")
def test_setting_that_cannot_be_used_shows_no_secret(
    name: str, shape: str, everywhere: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, shape.format(CANARY))
    for words in (("list",), ("config", "show"), ("doctor",), ("submit", "--data", "digits")):
        said = everywhere(words)
        assert CANARY not in said.text
        # The doctor takes a database that is not there for one that is not there yet.
        assert 0 not in said.codes or words == ("config", "show") or "sqlite" in shape, (words, said.text)


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
def test_job_file_that_is_refused_shows_no_secret(
    content: str, everywhere: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "job").write_text(content, encoding="utf-8")
    for more in ((), ("--json",), ("--dry-run",)):
        said = everywhere(("submit", str(tmp_path / "job"), *more))
        assert CANARY not in said.text
        assert set(said.codes) == {errors.InvalidSpec.exit_code}


@pytest.fixture(scope="module", autouse=True)
def _the_enumeration_is_whole() -> None:
    assert set(commands()) > NODES
    assert len(commands()) >= len(main.COMMANDS)
