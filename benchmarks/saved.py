"""What a network keeps for backward, counted: it depends on no machine."""

from collections.abc import Callable

import torch


def saved_bytes(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> int:
    """Return the bytes of all storages that backward keeps of the pictures in `forward(images)`.

    Parameters, what autocast makes of them, and statistics are not meant. On the meta device this takes no memory and
    no arithmetic.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if value.ndim > 1 and len(value) == len(images):
            storage = value.untyped_storage()
            kept[storage._cdata] = storage  # noqa: SLF001 - the one name by which a storage without memory is known
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        made = forward(images)  # holds what it has kept until it is gone
    del made
    return sum(storage.nbytes() for storage in kept.values())
