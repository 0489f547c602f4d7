"""A trained network at work, in a process of its own, since the command line never loads torch."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from orchestrator import config, errors, failpoints
from orchestrator.core.jobs import Checkpoint, Job
from orchestrator.service import node
from orchestrator.store.base import Store

#: A line that the process has written.
Answer = dict[str, Any]

#: Exit code of the process where an answer says that it is an error.
_SOME_FAILED = 1


def ask(
    settings: config.Settings, store: Store, job: Job, module: str, wanted: Mapping[str, object]
) -> Iterator[Answer]:
    """Yield what the module of `worker.training` answers when it is asked about the best checkpoint of a job.

    Raises:
        NotFound: the job has no checkpoint, or not on this host.
        OrchError: torch is missing, or the process failed.

    """
    node.need_torch()
    while True:
        chosen, begun = best(store.checkpoints(job.id), job), False
        try:
            for answer in _run(settings, module, {**_network(settings, store, job, chosen), **wanted}):
                begun = True
                yield answer
        except errors.OrchError:
            # A training that goes on removes the best so far as soon as it has recorded a better one.
            if begun or best(store.checkpoints(job.id), job).path == chosen.path:
                raise
        else:
            return


def best(checkpoints: Sequence[Checkpoint], job: Job) -> Checkpoint:
    """Return the best of a job's checkpoints, the newest before any epoch has closed; raises NotFound."""
    if not checkpoints:
        raise errors.NotFound(
            f"Job {job.id} has no checkpoint yet.",
            why="The first one is written at the end of an epoch.",
            hint=f"`orch status {job.id}` says how far it is.",
        )
    return next((checkpoint for checkpoint in checkpoints if checkpoint.best), checkpoints[0])


def _network(settings: config.Settings, store: Store, job: Job, checkpoint: Checkpoint) -> dict[str, object]:
    dataset = store.dataset(job.data_hash) if job.data_hash else None
    file = settings.artifact_dir / checkpoint.path
    if dataset is None or not file.exists():
        raise errors.NotFound(
            f"The checkpoint of job {job.id} is not on this host.",
            why=f"{file} does not exist.",
            hint="Use a host that has its artifact folder, or set ORCH_ARTIFACTS.",
        )
    return {
        "checkpoint": str(file.absolute()),
        "sha256": checkpoint.sha256,
        "bytes": checkpoint.bytes,
        "spec": job.spec.model_dump(mode="json"),
        "classes": list(dataset.classes),
    }


def _run(settings: config.Settings, module: str, request: Mapping[str, object]) -> Iterator[Answer]:
    with tempfile.TemporaryFile("w+") as said:
        yield from _answers(config.child_environment(settings), module, json.dumps(request), said)


def _answers(environment: dict[str, str], module: str, request: str, said: IO[str]) -> Iterator[Answer]:
    failpoints.reach("trained.start")
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,  # a file: a pipe that nobody reads would block it
        env=environment,
        text=True,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise errors.OrchError("The network's process has no pipes.")
        try:
            process.stdin.write(request)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has died: its exit code says so below
        for answer in map(json.loads, process.stdout):
            if "refused" in answer:
                raise errors.OrchError(**answer["refused"])
            yield answer
    if process.returncode not in {0, _SOME_FAILED}:
        said.seek(0)
        lines = said.read().strip().splitlines()
        why = lines[-1] if lines else f"It ended with code {process.returncode}."
        raise errors.OrchError("The process of the network failed.", why=why)
