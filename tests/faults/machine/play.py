"""How histories are gone through: so many that Hypothesis makes up, or one that a test has written down."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
from hypothesis import stateful

from tests.faults.machine import rules


def run(template: Path, *, examples: int, steps: int, seed: int | None = None) -> None:
    """Run so many histories of so many steps; without a seed, always the same ones."""
    chosen = type("SeededMachine", (rules.Machine,), {"template": template})
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=True,
    )
    if seed is not None:
        chosen = hypothesis.seed(seed)(chosen)
    stateful.run_state_machine_as_test(chosen, settings=settings)


@contextmanager
def played(template: Path) -> Iterator[rules.Machine]:
    """Yield a machine for a history that is written down; at its end all must hold."""
    machine: rules.Machine = type("WrittenMachine", (rules.Machine,), {"template": template})()
    try:
        yield machine
        machine.all_holds()
    finally:
        machine.teardown()
