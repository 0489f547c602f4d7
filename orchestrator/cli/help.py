"""`orch help`."""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from orchestrator import errors
from orchestrator.cli import render

app = typer.Typer(add_completion=False)


def complete_topic(incomplete: str) -> list[str]:
    """Complete a topic's name."""
    return [name for name in TOPICS if name.startswith(incomplete)]


@app.command(name="help", epilog="Examples:\n\norch help\n\norch help data\n\norch help exit-codes\n\norch help submit")
def help_(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", autocompletion=complete_topic, help="A topic, or the name of a command."),
    ] = None,
) -> None:
    """Explain data, recipes, states, exit codes, settings, files or devices."""
    from orchestrator.cli import main  # it imports this module by its name

    if topic is None:
        for name, (summary, _) in TOPICS.items():
            sys.stdout.write(f"{name:<12} {summary}\n")
    elif topic in TOPICS:
        render.prose("\n".join(TOPICS[topic][1]()))
    elif topic in main.COMMANDS:
        command = main.load(topic)
        typer.echo(command.get_help(typer.Context(command, info_name=f"orch {topic}")))
    else:
        from orchestrator.core import spelling

        raise errors.UsageError(
            f"There is no topic {topic[:20]!a}{spelling.nearest(topic, [*TOPICS, *main.COMMANDS])}", hint="orch help"
        )


def _data() -> Iterator[str]:
    yield """What `--data` takes:

  digits, cats_and_dogs   sets with a name; digits is in the package
  torchvision:CIFAR10     one of torchvision's, with its split: CIFAR10, CIFAR100, SVHN, MNIST, FashionMNIST,
                          Flowers102, OxfordIIITPet, Food101, Imagenette; --data-sha256 is not for these
  https://host/set.zip    an archive on the web; downloads resume, --data-sha256 checks it
  set.zip, file:/set.zip  an archive on this host, which the workers must see under the same path
  pictures/               a folder; the same holds for it

An archive or folder holds train/ and validation/ (or val/, test/), each with a folder for every class and the
pictures in it; all of this may lie in one folder more. Each host keeps one copy by content below its data cache.
Where others may submit, private addresses are refused (ORCH_ALLOW_PRIVATE_HOSTS) and only folders of ORCH_DATA_ROOTS
are read."""


def _recipes() -> Iterator[str]:
    from orchestrator.service import recipes

    yield "A recipe is a job file in the package, taken by its name: `orch submit --recipe NAME`.\n"
    for name in recipes.names():
        yield f"  {name:<15} {recipes.load(name).summary}"
    yield """
What counts: flags over the job file over the recipe over what the names of network, data and weights bring with them
over the defaults. `orch submit --dry-run` says of every value where it comes from, `orch recipes NAME` prints a recipe
as a job file to change, `orch init` writes one with every field."""


def _states() -> Iterator[str]:
    from orchestrator.core import states

    yield "A job passes the stages download, train and evaluate, and is in one of these states:\n"
    for state in states.JobState:
        following = ", ".join(sorted(states.MOVES[state])) or "nothing: it is the end"
        yield f"  {state:<10} then {following}"
    yield """
From failed and cancelled `orch retry` leads back, and from them and from succeeded `orch extend` with more epochs: as a
new run of the same job. A running job is shown by what it is at: downloading, training, evaluating, yielding, pausing,
cancelling, or silent where its worker is not heard of.
It fails for one of these reasons, and is tried again so often without progress (`--retries lost=10` changes it):
"""
    from orchestrator.core import retry

    for reason in states.Reason:
        yield f"  {reason:<20} {retry.LIMITS.get(reason, 0)}"


def _exit_codes() -> Iterator[str]:
    yield """  0    done
  1    failed; `orch doctor`: something is broken; steering many jobs: some were refused
  2    the request cannot be understood: flags, job file, settings
  3    no such job, or several answer to that
  4    the database, or a broker that is required, is out of reach
  5    the job that was waited for failed
  6    it was cancelled
  7    the time given was not enough
  130  Ctrl-C; jobs go on
  141  whoever read the output wanted no more of it, such as `head`"""


def _settings() -> Iterator[str]:
    from orchestrator import config

    yield """A flag beats the environment, which beats .env, which beats orch.toml in the working folder, which
beats the user's own file. `orch config show --origin` says what is in force and why. Secrets may be given as
ORCH_…_FILE.
"""
    for name, field in config.Settings.model_fields.items():
        yield f"  {config.variable(name):<28} {field.description}"


def _files() -> Iterator[str]:
    yield """Everything of one machine lies below ORCH_HOME (`orch config paths` names it and its main folders):

  orch.db       jobs, metrics, history, logs; ORCH_DATABASE_URL puts them into PostgreSQL
  artifacts/    checkpoints and logs, a folder a job; ORCH_ARTIFACTS
  data/         data sets by content, downloaded weights, decoded pixels, compiled code; ORCH_DATA_CACHE; it may be
                deleted
  broker/       the embedded server's file: doorbells only
  bundles/      weights that came in bundles
  tensorboard/  event files, where ORCH_SINKS asks for them
  run/          pid file, locks, sockets
  node.log      what the node of `orch up -d` says

It must be on a local disk. Devices are locked below ORCH_LOCK_DIR, which all users of a host share."""


def _devices() -> Iterator[str]:
    yield """A worker trains one job at a time on each of its devices (`--devices`, ORCH_DEVICES):

  auto     every GPU that is free, or the CPU where there is none
  one      any one free GPU: for several workers on a host
  0,2      these GPUs, as nvidia-smi numbers them
  cpu      the CPU
  none     nothing: the worker downloads, takes back and tells

A job says what it needs: --gpus 2 (devices that train it together), --device a100 (cpu, gpu, or a part of the GPU's
name), --gpu-memory 40GB, --label bigdisk (of workers with ORCH_LABELS=bigdisk). `orch why JOB` says who has it.

A GPU is claimed by a lock that all users of the host share; one that CUDA_VISIBLE_DEVICES hides is none.
ORCH_SLOTS_PER_DEVICE lets several jobs share one, ORCH_THREADS sets the CPU threads of a training. torch for x86-64 is
built for CUDA 13: driver 580 or newer, compute capability 7.5 or newer. `orch doctor` looks at all of this."""


TOPICS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "data": ("what --data takes, and how pictures must lie", _data),
    "recipes": ("ways to train by name, and which value wins", _recipes),
    "states": ("states of a job, reasons of a failure, retries", _states),
    "exit-codes": ("what a command's exit code means", _exit_codes),
    "settings": ("every ORCH_ variable", _settings),
    "files": ("what lies where", _files),
    "devices": ("GPUs and CPUs of a worker", _devices),
}
