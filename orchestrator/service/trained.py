"""The network of a trained job, asked in a process of its own."""

from collections.abc import Iterator, Mapping, Sequence

from orchestrator import config, errors
from orchestrator.core.jobs import Checkpoint, Job
from orchestrator.service import asking, node
from orchestrator.store.base import Store


def ask(
    settings: config.Settings, store: Store, job: Job, module: str, wanted: Mapping[str, object]
) -> Iterator[asking.Answer]:
    """Yield what the module of `worker.training` answers when it is asked about the best checkpoint of a job.

    Raises:
        NotFound: the job has no checkpoint, or not on this host.
        OrchError: torch is missing, or the process failed.

    """
    node.need_torch()
    while True:
        chosen, begun = best(store.checkpoints(job.id), job), False
        try:
            for answer in asking.ask(settings, module, {**_network(settings, store, job, chosen), **wanted}):
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
