"""The edge of the program: what help imports, where errors end, pipes that close, Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orchestrator import config, errors
from orchestrator.cli import main
from orchestrator.core import jobs, specs, states
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch

HEAVY = ("sqlalchemy", "celery", "kombu", "redis", "alembic", "torch")
ORCH = [sys.executable, "-m", "orchestrator"]


def loaded(words: list[str], env: dict[str, str] | None = None) -> set[str]:
    """Return the modules that a command line has imported at its end."""
    script = (
        "import contextlib, io, json, sys\nfrom orchestrator.cli import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main.run({words!r})\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--help"], ["submit", "--help"], ["status", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert loaded(words).isdisjoint(HEAVY)


def test_the_overview_imports_not_even_pydantic() -> None:
    assert "pydantic" not in loaded(["--help"])


def test_completion_imports_nothing_heavy(settings: config.Settings) -> None:
    env = {
        **config.child_environment(settings),
        "_ORCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "orch status x",
        "COMP_CWORD": "2",
    }
    assert loaded([], env).isdisjoint(HEAVY)


def test_looking_imports_no_celery_no_rich_in_a_pipe_and_one_dialect(
    store: base.Store, settings: config.Settings
) -> None:
    parts.submit(store)
    env = config.child_environment(settings)
    for words in (["status"], ["status", "@latest"], ["list"]):
        assert loaded(words, env).isdisjoint(
            {"celery", "redis", "rich", "alembic", "psutil", "tenacity", "torch", "sqlalchemy.dialects.postgresql"}
            | {"orchestrator.core.diffs", "orchestrator.queue", "orchestrator.service.bell"}
        )


def test_submitting_imports_no_celery_and_no_rich_in_a_pipe(store: base.Store, settings: config.Settings) -> None:
    imported = loaded(["submit", "--data", "digits"], config.child_environment(settings))
    assert store.find("@latest").spec.data == "digits"
    assert imported.isdisjoint(
        {"celery", "kombu", "redis", "rich", "alembic", "psutil", "tenacity", "sqlalchemy.dialects.postgresql"}
    )


def test_what_rings_imports_little_and_nothing_that_the_command_imports_as_well(
    store: base.Store, settings: config.Settings
) -> None:
    script = (
        "import json, os, sys\nfrom orchestrator.cli import main\n"
        "fork, before = os.fork, set()\n"
        "def forked():\n    before.update(sys.modules)\n    return fork()\n"
        "os.fork = forked\nmain.run(['submit', '--data', 'digits'])\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    rings = "import json, sys\nfrom orchestrator.queue import dispatch\nprint(json.dumps(sorted(sys.modules)))"
    beside, ringing = (
        set(
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", each],
                    env=config.child_environment(settings),
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.splitlines()[-1]
            )
        )
        for each in (script, rings)
    )
    assert store.find("@latest").spec.data == "digits"
    assert "sqlalchemy" in beside
    assert beside & ringing == set()
    assert "redis" in ringing
    assert ringing.isdisjoint({"celery", "kombu", "psutil", "tenacity"})


@pytest.mark.parametrize(("disabled", "loads"), [({}, False), ({"PYDANTIC_DISABLE_PLUGINS": ""}, True)])
def test_no_plugin_of_pydantic_is_looked_for_unless_that_is_wished(
    tmp_path: Path, settings: config.Settings, disabled: dict[str, str], loads: bool
) -> None:
    (tmp_path / "foreign.py").write_text("import sys\nsys.stderr.write('loaded')\nplugin = None\n")
    about = tmp_path / "foreign-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: foreign\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pydantic]\nforeign = foreign:plugin\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    env = {**config.child_environment(settings), "PYTHONPATH": path, **disabled}
    done = subprocess.run([*ORCH, "config", "show"], env=env, capture_output=True, text=True, check=False)
    assert ("loaded" in done.stderr) is loads


def test_options_of_text_are_read_by_one() -> None:
    texts = [option for option in main.load("submit").params if option.type_descriptor.annotation is str]
    assert len(texts) > 40
    assert len({id(option.get_runtime_param()) for option in texts}) == 1


def complete(words: str, settings: config.Settings) -> list[str]:
    env = {
        **config.child_environment(settings),
        "_ORCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return subprocess.run(ORCH, env=env, capture_output=True, text=True, check=True).stdout.split()


def test_commands_flags_and_ids_are_completed(store: base.Store, settings: config.Settings) -> None:
    job = parts.submit(store)
    assert complete("orch sta", settings) == ["status"]
    assert complete("orch submit --ep", settings) == ["--epochs"]
    assert complete(f"orch status {job.id[:3]}", settings) == [job.id]


def test_completion_without_a_database_is_empty(settings: config.Settings) -> None:
    assert complete("orch status abc", settings) == []


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_the_overview_says_what_the_command_says_and_its_help_has_an_example(name: str) -> None:
    command = main.load(name)
    assert str(command.help).split("\n")[0] == main.COMMANDS[name].summary
    described = getattr(command, "commands", {name: command})
    assert all("Example" in member.epilog and "orch " in member.epilog for member in described.values())


def test_an_unknown_command_is_code_2_with_the_nearest(orch: Orch) -> None:
    ran = orch("statsu")
    assert ran.code == 2
    assert "Did you mean 'status'?" in ran.err


def test_no_command_is_the_overview(orch: Orch) -> None:
    ran = orch()
    assert ran.code == 0
    assert "Queue a training job." in ran.out


def test_an_error_has_three_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(_: str) -> None:
        raise errors.Unavailable("It is away.", why="It is off.", hint="orch up -d")

    monkeypatch.setattr(main, "load", explain)
    assert main.run(["status"]) == 4
    assert capsys.readouterr().err == "error: It is away.\n  why: It is off.\n  try: orch up -d\n"


def test_a_defect_shows_a_traceback_only_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_: str) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(main, "load", break_down)
    assert main.run(["status"]) == 1
    assert "defect in orch.\n  why: ZeroDivisionError: by zero" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main.run(["status"], debug=True)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (PermissionError(13, "Permission denied", "/srv/x"), "/srv/x cannot be used.\n  why: Permission denied"),
        (OSError(28, "No space left on device", "/srv/x"), "/srv/x cannot be used.\n  why: No space left on device"),
        (FileNotFoundError(2, "No such file or directory"), "The working folder is gone.\n  try: cd"),
    ],
)
def test_what_the_system_refuses_is_no_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trouble: OSError, said: str
) -> None:
    def meet(_: str) -> None:
        raise trouble

    monkeypatch.setattr(main, "load", meet)
    assert main.run(["status"]) == 1
    assert f"error: {said}" in capsys.readouterr().err


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("words", [("status", "\udcff"), ("list", "--user", "\udcff"), ("cancel", "--user", "\udcff")])
def test_a_name_that_is_no_text_is_code_2(orch: Orch, words: tuple[str, ...]) -> None:
    ran = orch(*words)
    assert (ran.code, ran.out) == (2, "")
    assert "that the database cannot hold" in ran.err


@pytest.mark.parametrize(("answer", "code"), [(KeyboardInterrupt, 130), (EOFError, 1)])
def test_ctrl_c_at_a_question_has_the_code_of_ctrl_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: type[BaseException], code: int
) -> None:
    def ask(_: str) -> None:
        typer.confirm("Delete 1 job?", abort=True, err=True)

    def read(_: str) -> str:
        raise answer

    monkeypatch.setattr("typer._click.termui.visible_prompt_func", read)
    monkeypatch.setattr(main, "load", ask)
    assert main.run(["status"]) == code
    assert "error: Aborted." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["list"], ["submit", "--data", "digits"]])
def test_a_working_folder_that_is_gone_is_said(settings: config.Settings, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "gone").mkdir()
    line = f"rmdir ../gone && {shlex.join([*ORCH, *words])}"
    env = config.child_environment(settings)
    ran = subprocess.run(
        ["/bin/sh", "-c", line], env=env, cwd=tmp_path / "gone", capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "error: The working folder is gone." in ran.stderr


def test_an_unknown_setting_is_code_2_with_the_nearest(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_LEESE", "3")
    ran = orch("list")
    assert ran.code == 2
    assert "Did you mean ORCH_LEASE?" in ran.err


def test_the_home_flag_beats_the_environment(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    parts.submit(store)
    assert orch("--home", str(tmp_path / "other"), "list").out == ""
    assert len(orch("list").rows) == 1


def test_commands_that_are_named_mean_the_home_that_was_given(orch: Orch, tmp_path: Path) -> None:
    home = tmp_path / "an other"
    assert f"`orch --home '{home}' up -d`" in orch("--home", str(home), "submit", "--data", "digits").err
    assert "`orch list -a`" in orch("status", "nonesuch").err


@pytest.mark.parametrize("words", ["status", "recipes", "submit --help"])
@pytest.mark.usefixtures("store")
def test_a_pipe_that_closes_early_ends_it_quietly(settings: config.Settings, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*ORCH, *words.split()]
    with os.fdopen(writer) as closed:
        env = config.child_environment(settings)
        done = subprocess.run(command, env=env, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.usefixtures("store")
def test_a_full_disk_behind_stdout_is_said(settings: config.Settings) -> None:
    with Path("/dev/full").open("w") as full:
        env = config.child_environment(settings)
        done = subprocess.run([*ORCH, "status"], env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: The output cannot be written.\n  why: No space left on device\n"


@pytest.mark.usefixtures("store")
def test_a_closed_input_is_no_job(settings: config.Settings) -> None:
    line = f"{shlex.join([*ORCH, 'submit', '-'])} <&-"
    env = config.child_environment(settings)
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "It is closed" in done.stderr


def test_a_home_whose_name_cannot_be_is_code_4(orch: Orch, tmp_path: Path) -> None:
    ran = orch("--home", str(tmp_path / ("long" * 100)), "list")
    assert ran.code == 4
    assert "too long" in ran.err


@pytest.mark.parametrize(
    ("to", "words", "code"),
    [
        (">&-", ["list"], 0),
        ("2>&-", ["statsu"], 2),
        ("2>/dev/full", ["status", "gone"], 3),
        ("2>&- >&-", ["status"], 0),
    ],
)
def test_a_lost_stream_changes_no_exit_code(
    store: base.Store, settings: config.Settings, to: str, words: list[str], code: int
) -> None:
    parts.submit(store)  # so that there is something to say
    env = config.child_environment(settings)
    line = f"{shlex.join([*ORCH, *words])} {to}"
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_job_whose_id_cannot_be_printed_is_named_all_the_same(store: base.Store, settings: config.Settings) -> None:
    env = config.child_environment(settings)
    line = f"{shlex.join([*ORCH, 'submit', '--data', 'digits', '-q'])} >/dev/full"
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    (job,) = store.jobs(jobs.JobFilter())
    assert done.returncode == 1
    assert f"Job {job.id} is stored all the same." in done.stderr
    assert "The output cannot be written." in done.stderr


@pytest.mark.parametrize("words", [("wait",), ("watch",), ("logs", "-f")])
def test_ctrl_c_leaves_the_job_alone_and_says_so(
    store: base.Store, settings: config.Settings, words: tuple[str, ...]
) -> None:
    held = parts.training(store, spec=specs.parse({"data": "digits"}))
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="here\n"))
    waiting = [parts.submit(store).id] if words == ("wait",) else []
    with subprocess.Popen(
        [*ORCH, *words, *(["--json"] if words == ("watch",) else []), held.id, *waiting],
        env={**config.child_environment(settings), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as looking:
        assert looking.stdout is not None
        if words == ("wait",):
            store.cancel(waiting[0], actor="ada")  # its line says that the waiting has begun
        looking.stdout.readline()
        looking.send_signal(signal.SIGINT)
        _, said = looking.communicate(timeout=60)
    assert looking.returncode == 130
    assert f"Detached: {held.id}" in said
    assert f"`orch cancel {held.id}" in said
    assert store.get(held.id).state is states.JobState.RUNNING
    assert store.beat(held) is states.Wish.RUN


def test_ctrl_c_while_the_program_is_imported_is_no_traceback() -> None:
    script = (
        "import os, signal, sys\n"
        "class Hit:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hit())\n"
        "from orchestrator.cli import entry\n"
        "entry.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "list"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("training", "A job that is training is in the state running."),
        ("Cancelling", "A job that is cancelling is in the state running."),
        ("suceeded", "Did you mean succeeded?"),
        ("Running", "Did you mean running?"),
        ("xyz", None),
    ],
)
@pytest.mark.parametrize("command", ["list", "cancel"])
def test_a_word_that_is_no_state_is_led_to_one(orch: Orch, command: str, given: str, why: str | None) -> None:
    ran = orch(command, "--state", given)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{given}' is not one of 'queued', 'running'" in ran.err
    assert "Value error" not in ran.err  # a word of the parser's
    assert (f"why: {why}" in ran.err) if why else ("why:" not in ran.err)
