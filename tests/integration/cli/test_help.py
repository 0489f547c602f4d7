"""Help: examples that can be typed, topics that agree with the code, completion that is quick."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import config, errors
from orchestrator.cli import entry, main
from orchestrator.cli import help as topics
from orchestrator.core import states
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch


def all_commands() -> Iterator[tuple[str, Any]]:
    for name in main.COMMANDS:
        command = main.load(name)
        members = getattr(command, "commands", {})
        yield from ((f"{name} {member}", each) for member, each in members.items())
        if not members or command.invoke_without_command:
            yield name, command


COMMANDS = dict(all_commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_can_be_typed(name: str) -> None:
    epilog = COMMANDS[name].epilog or ""
    assert re.match(r"\s*Examples?:", epilog), "its help shows no example"
    shown = re.findall(r"(?<![\w`])orch ([a-z][^|&>`\n]*)", epilog.partition("\n\nEditors")[0])
    assert any(f"{words.strip()} ".startswith(f"{name} ") for words in shown), shown
    for words in shown:
        first, *rest = shlex.split(words.strip().removesuffix(")"))
        command = main.load(first)
        if rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(first, rest)  # raises where it cannot be


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_every_topic_explains_something(orch: Orch, topic: str) -> None:
    ran = orch("help", topic)
    assert (ran.code, len(ran.out.splitlines()) > 8) == (0, True)
    assert topic in {"settings", "recipes"} or max(map(len, ran.out.splitlines())) <= 120
    assert [topic] in [line.split()[:1] for line in orch("help").out.splitlines()]


def test_topics_agree_with_the_code(orch: Orch) -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    told = {int(code) for code in re.findall(r"^  (\d+) ", orch("help", "exit-codes").out, re.MULTILINE)}
    assert told == codes | {0, 130, 141}
    said = orch("help", "states").out
    assert all(f"  {word} " in said for word in (*states.JobState, *states.Reason))
    assert all(config.variable(name) in orch("help", "settings").out for name in config.Settings.model_fields)


def test_help_of_a_command_is_its_help(orch: Orch) -> None:
    assert "Usage: orch submit" in orch("help", "submit").out
    ran = orch("help", "exitcodes")
    assert (ran.code, "did you mean 'exit-codes'" in ran.err) == (2, True)


def test_ids_are_completed_where_a_command_takes_jobs() -> None:
    first = {
        name: next((each.metavar for each in command.params if each.param_type_name == "argument"), None)
        for name, command in COMMANDS.items()
    }
    assert {name for name, metavar in first.items() if metavar == "JOB"} == entry.ONE_JOB
    assert {name for name, metavar in first.items() if metavar == "JOB..."} == entry.MANY_JOBS


@pytest.mark.parametrize(
    ("shell", "line", "told"),
    [
        ("bash", "orch status ", "{id}"),
        ("bash", "orch cancel abc {prefix}", "{id}"),
        ("zsh", "orch cancel ", '_arguments \'*: :(("{id}":"queued"))\''),
        ("fish", "orch wait ", "{id}\tqueued it's $(x)"),
        ("bash", "orch status abc ", None),  # it takes one
        ("bash", "orch cancel --tag ", None),  # the value of a flag
        ("bash", "orch submit ", None),
        ("bash", "orch sta", None),
        ("bash", "orch status 'a ", None),
        ("bash", "orch status zzzzzzz", None),  # there is none: Typer's answer is the shell's own files
        ("pwsh", "orch status ", None),
    ],
)
def test_shells_are_answered(
    shell: str, line: str, told: str | None, store: base.Store, settings: config.Settings
) -> None:
    job = parts.submit(store, name="it's $(x)")
    words = line.format(prefix=job.id[:3])
    asked = {"_ORCH_COMPLETE": f"complete_{shell}", "ORCH_HOME": str(settings.home)}
    if shell == "bash":
        asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert entry.complete(asked) == (told.format(id=job.id) if told else None)


def test_ids_are_completed_before_typer_is_imported(store: base.Store, settings: config.Settings) -> None:
    job = parts.submit(store)
    script = "import sys; from orchestrator.cli import entry; entry.main(); print(*sorted(sys.modules))"
    asked = {"_ORCH_COMPLETE": "complete_bash", "COMP_WORDS": "orch status ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**config.child_environment(settings), **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    said, modules = done.stdout.splitlines()
    assert said == job.id
    assert set(modules.split()).isdisjoint({"typer", "pydantic", "rich", "sqlalchemy"})


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_people_write(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "<bool>" not in said  # a flag takes nothing
    assert "<list[" not in said
    usage = next(line for line in said.splitlines() if "Usage:" in line)
    assert not re.search(r"[{}]|\.\.\.\]\.\.\.", usage)
    paragraphs = (COMMANDS[name].help or "").split("\n\n")
    assert not any("\n" in paragraph for paragraph in paragraphs)  # the terminal breaks them where it ends


def test_words_to_choose_from_are_in_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["list", "--help"]) == 0
    assert "One of queued, running, paused, succeeded, failed, cancelled." in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )
