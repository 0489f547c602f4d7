"""P1: `orch status` and `orch submit`, cold, against `dvc queue status`, `dvc exp run --queue` and `ray job submit`.

python -m benchmarks.cli [--quick] [--write]
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import dvc, measure, place, rays
from orchestrator.queue import embedded

#: Starts take about a second, and scatter by a quarter of it.
PAIRS = 13

#: Jobs that wait in both queues while they are asked; each submit adds one.
WAITING, QUICK = 20, 2


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Measure orch as pip installs it, its broker running and no worker."""
    orch, pairs = str(place.installed()), 1 if quick else PAIRS
    with place.home() as home:
        embedded.ensure(home.settings)
        status, submit = ([orch, *words] for words in (("status",), ("submit", "--data", "digits")))
        env = {name: value for name, value in home.env.items() if name != "PYTHONPATH"}
        ours = [functools.partial(measure.wall, words, env=env, cwd=home.folder) for words in (status, submit)]
        for _ in range(QUICK if quick else WAITING):
            ours[1]()
        return [*_against_dvc(*ours, waiting=QUICK if quick else WAITING, pairs=pairs), _against_ray(ours[1], pairs)]


def _against_dvc(
    status: Callable[[], float], submit: Callable[[], float], *, waiting: int, pairs: int
) -> list[measure.Figure]:
    with tempfile.TemporaryDirectory() as scratch, dvc.project(Path(scratch) / "project", "true") as project:
        for _ in range(waiting):
            project.run(*project.queue_command)
        looked = measure.in_turns(
            status, lambda: measure.wall(project.status_command, env=project.env, cwd=project.folder), pairs=pairs
        )
        queued = measure.in_turns(
            submit, lambda: measure.wall(project.queue_command, env=project.env, cwd=project.folder), pairs=pairs
        )
    return [
        measure.Figure(
            id="P1",
            what=f"`orch status`, {waiting} jobs waiting",
            peer="`dvc queue status`",
            ours=looked[0],
            theirs=looked[1],
            reach=1 / 3,
        ),
        measure.Figure(
            id="P1",
            what="`orch submit`",
            peer="`dvc exp run --queue`",
            ours=queued[0],
            theirs=queued[1],
            reach=1 / 2,
        ),
    ]


def _against_ray(submit: Callable[[], float], pairs: int) -> measure.Figure:
    with rays.cluster() as cluster:
        ours, theirs = measure.in_turns(submit, lambda: cluster.submit("true"), pairs=pairs)
    return measure.Figure(id="P1", what="`orch submit`", peer="`ray job submit`", ours=ours, theirs=theirs, reach=1 / 2)


if __name__ == "__main__":
    measure.command("benchmarks.cli", figures)
