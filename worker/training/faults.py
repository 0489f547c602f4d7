"""What torch's own errors mean for a job."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchestrator import errors
from orchestrator.core import specs, states

_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def named(spec: specs.JobSpec) -> Iterator[None]:
    """Turn torch's errors into `StageFailed`: oom and gpu_error."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(spec) from error
    except torch.AcceleratorError as error:
        raise errors.StageFailed(
            "The GPU failed.",
            reason=states.Reason.GPU_ERROR,
            why=str(error).splitlines()[0],
            hint="`orch doctor` checks driver and devices.",
        ) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR in str(error):
            raise _out_of_memory(spec) from error
        raise


def _out_of_memory(spec: specs.JobSpec) -> errors.StageFailed:
    return errors.StageFailed(
        "Memory ran out.",
        reason=states.Reason.OOM,
        why=f"{spec.network} with batches of {spec.batch_size} at {spec.image_size} pixels does not fit.",
        hint="Try a smaller --batch-size or --image-size.",
    )
