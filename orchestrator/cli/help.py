"""`orch help`."""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from orchestrator import errors
from orchestrator.cli import render
from orchestrator.core import states

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
pictures in it; all of this may lie in one more folder. Each host keeps one copy of every data set, by its content.
With a database server, where others may submit, downloads from private addresses are refused (unless
ORCH_ALLOW_PRIVATE_HOSTS allows them), and files are read below the folders of ORCH_DATA_ROOTS only."""


def _recipes() -> Iterator[str]:
    from orchestrator.service import recipes

    yield "A recipe is a job file in the package, taken by its name: `orch submit --recipe NAME`.\n"
    for name in recipes.names():
        yield f"  {name:<15} {recipes.load(name).summary}"
    yield """
A flag wins over the job file, the job file over the recipe, the recipe over the values that come with the names of
network, data and weights, and these over the defaults. `orch submit --dry-run` says of every value where it comes
from, `orch recipes NAME` prints a recipe as a job file to change, `orch init` writes one with every field."""


#: What the states and reasons of a job mean.
_STATES = {
    states.JobState.QUEUED: "waits for a worker, a time or another job",
    states.JobState.RUNNING: "a worker is at it",
    states.JobState.PAUSED: "was set aside by `orch pause`",
    states.JobState.SUCCEEDED: "all stages are done",
    states.JobState.FAILED: "has ended, for one of the reasons below",
    states.JobState.CANCELLED: "was ended by `orch cancel`",
}
_REASONS = {
    states.Reason.BAD_INPUT: "the data or the weights cannot be used",
    states.Reason.USER_ERROR: "the settings of the job do not go with its data",
    states.Reason.OOM: "out of memory; each retry keeps less of it, see --memory",
    states.Reason.GPU_ERROR: "the GPU failed",
    states.Reason.DIVERGED: "the loss is no finite number: a lower --lr may help",
    states.Reason.STALLED: "no progress for ORCH_STALL seconds",
    states.Reason.LOST: "the worker or the training process vanished",
    states.Reason.TIMEOUT: "it ran longer than --max-duration",
    states.Reason.DISK_FULL: "no room for data or checkpoints",
    states.Reason.POISON: "every worker that took it died",
    states.Reason.NO_VALID_CHECKPOINT: "there are checkpoints, and all of them are damaged",
    states.Reason.UNREACHABLE: "the source of its data does not answer",
    states.Reason.DEPENDENCY: "a job that it waited for (--after) did not succeed",
    states.Reason.INTERNAL: "a defect in orch",
}


def _states() -> Iterator[str]:
    from orchestrator.core import retry

    yield "A job passes the stages download, train and evaluate, and is in one of these states:\n"
    for state, meaning in _STATES.items():
        yield f"  {state:<10} {meaning}; then {', '.join(sorted(states.MOVES[state]))}"
    yield """
`orch retry` queues a failed or cancelled job again, `orch extend` also one that has succeeded, with more epochs: as a
new run of the same job. A running job is shown by what it does: downloading, training, evaluating, yielding, pausing,
cancelling, or silent where its worker has not been heard of.

Why it fails, and how often it is tried again without progress in between (`--retries lost=10` changes that):
"""
    for reason, meaning in _REASONS.items():
        yield f"  {reason:<20} {retry.LIMITS.get(reason, 0)}   {meaning}"


def _exit_codes() -> Iterator[str]:
    yield """  0    done
  1    failed; for example `orch doctor` found something broken, or one of many jobs was refused
  2    the request cannot be understood: flags, job file, settings
  3    no such job, or several that could be meant
  4    the database, or a broker that is required, is out of reach
  5    the job that was waited for failed
  6    it was cancelled
  7    the time given was not enough
  130  Ctrl-C; jobs go on
  141  nobody reads the output any more, as behind `| head`"""


def _settings() -> Iterator[str]:
    from orchestrator import config

    yield """A flag wins over the environment, that over .env, that over orch.toml in the working folder, and that over
the user's own file. `orch config show --origin` says what is in force and where it comes from. ORCH_DATABASE_URL,
ORCH_BROKER_URL and ORCH_NOTIFY may be given as files: ORCH_DATABASE_URL_FILE=/path. Times are in seconds, sizes in
bytes.
"""
    for name, field in config.Settings.model_fields.items():
        yield f"  {config.variable(name):<28} {field.description}"


def _files() -> Iterator[str]:
    yield """Everything of one machine lies below ORCH_HOME (`orch config paths` names it and its main folders):

  orch.db       jobs, metrics, history, logs; ORCH_DATABASE_URL puts them into PostgreSQL
  artifacts/    checkpoints and logs, a folder for each job; ORCH_ARTIFACTS puts it elsewhere
  data/         data sets, downloaded weights, decoded pixels, compiled code; ORCH_DATA_CACHE puts it elsewhere; it may
                be deleted, since jobs fetch what is missing
  broker/       the embedded server's file: messages that wake workers, which may be lost
  bundles/      weights that came in bundles
  tensorboard/  event files, where ORCH_SINKS asks for them
  run/          pid file, locks, sockets
  node.log      the log of the node of `orch up -d`

ORCH_HOME must be on a local disk. Devices are locked below ORCH_LOCK_DIR, which all users of a host share."""


def _devices() -> Iterator[str]:
    yield """A worker trains one job at a time on each of its devices (`--devices`, ORCH_DEVICES):

  auto     every GPU that is free, or the CPU where there is none
  one      any one free GPU: for several workers on a host
  0,2      these GPUs, as nvidia-smi numbers them
  cpu      the CPU
  none     no device: the worker only downloads, takes back jobs of dead workers and sends notices

A job says what it needs: --gpus 2 (devices that train it together), --device a100 (cpu, gpu, or a part of the GPU's
name), --gpu-memory 40GB, --label bigdisk (a worker with ORCH_LABELS=bigdisk). `orch why JOB` says which workers have
it.

A GPU is claimed by a lock that all users of the host share; one that CUDA_VISIBLE_DEVICES hides is not used.
ORCH_SLOTS_PER_DEVICE lets several jobs share a device, ORCH_THREADS sets the CPU threads of a training. torch for
x86-64 is built for CUDA 13: driver 580 or newer, compute capability 7.5 or newer. `orch doctor` checks all of this."""


TOPICS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "data": ("what --data takes, and how pictures must lie", _data),
    "recipes": ("ways to train by name, and which value wins", _recipes),
    "states": ("states of a job, reasons of a failure, retries", _states),
    "exit-codes": ("what a command's exit code means", _exit_codes),
    "settings": ("every ORCH_ variable", _settings),
    "files": ("where orch keeps what", _files),
    "devices": ("GPUs and CPUs of a worker, and what a job may ask for", _devices),
}
