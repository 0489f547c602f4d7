"""All figures of the README: each part is measured and written between its markers, whatever became of the others."""

import sys
import traceback
from collections.abc import Callable, Sequence

from benchmarks import (
    claims,
    cli,
    drain,
    first_step,
    loading,
    measure,
    memory,
    overhead,
    place,
    saving,
    training,
    tuning,
)
from docs import markers

PARTS: tuple[Callable[[], Sequence[measure.Figure]], ...] = (
    cli.figures,
    first_step.figures,
    drain.figures,
    training.figures,
    memory.figures,
    loading.figures,
    overhead.figures,
    saving.figures,
    tuning.figures,
    claims.figures,
)


def main() -> int:
    """Measure one part after the other; return 1 where some could not be."""
    failed = False
    for figures in PARTS:
        print(f"{figures.__module__} …", file=sys.stderr)
        try:
            measured = figures()
        except Exception:  # noqa: BLE001 - the others' figures are worth having
            traceback.print_exc()
            failed = True
        else:
            markers.write("figures", measure.replaced(markers.read("figures"), measured))
    lines, _, _ = markers.read("figures").partition("\n\n")
    machine = measure.machine(dvc=place.version("dvc"), ray=place.version("ray"))
    markers.write("figures", f"{lines}\n\n{machine}")
    print(markers.read("figures"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
