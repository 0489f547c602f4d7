"""What a training comes to where nothing befalls it: a digest of its weights and its optimizer."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch

from orchestrator.core import jobs, specs
from tests.support import running
from tests.unit.worker.training import support
from worker import protocol
from worker.training import stage


def weights(root: Path, spec: specs.JobSpec) -> str:
    """Train in this process, below `root`, and return the digest."""
    follower = support.Follower()
    threads = torch.get_num_threads()
    stage.with_data(stage.train, support.assignment(root, spec), follower)
    torch.set_num_threads(threads)
    return _digest(root, follower.last(root)[0])


def weights_of(installed: running.Installation, job_id: str) -> str:
    """Return the digest of a job's newest checkpoint, whose file must be the one that is in the database."""
    return _digest(installed.settings.artifact_dir, installed.store.checkpoints(job_id)[0])


def _digest(root: Path, newest: jobs.Checkpoint | protocol.CheckpointInfo) -> str:
    content = (root / newest.path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == newest.sha256
    digest = hashlib.sha256()
    for name, tensor in sorted(safetensors.torch.load(content).items()):
        if name.startswith(("model.", "optimizer.")):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
