"""What a training runs on: told at the first step of every attempt, so that its result can be told from another's."""

from orchestrator import config
from worker import identity, picks, processor, protocol
from worker.training import kernels, numerics, trainer

#: Looked up at the import, which a fork server does once.
_VERSIONS = identity.versions()


def here(learner: trainer.Trainer) -> protocol.Environment:
    """Return what this process trains with, once its threads are set and its kernels chosen."""
    used = numerics.Numerics.here(learner.device, learner.kernels)
    return protocol.Environment(
        versions=_VERSIONS,
        device=used.device,
        cpu=processor.MODEL,
        instructions=used.cpu,
        threads=used.threads,
        layout=used.layout,
        precision=used.precision,
        seed=learner.spec.seed,
        compiled=used.compiled,
        code=used.code,
        **kernels.gpu_switches(learner.device),
    )


def layout_pick(learner: trainer.Trainer, settings: config.Settings) -> picks.Pick:
    """Return what this host remembers of the layout in which such a training is faster on such a device."""
    spec, used = learner.spec, numerics.Numerics.here(learner.device)
    rests_on = {name: getattr(spec, name) for name in ("shape", "image_size", "batch_size", "precision")} | {
        "pick": "layout",
        "memory": learner.model.memory,
        "device": used.device,
        "processor": processor.MODEL,
        "instructions": used.cpu,
        "threads": used.threads,
        "software": used.software,
    }
    return picks.Pick(settings, rests_on)
