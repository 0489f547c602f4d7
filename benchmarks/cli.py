"""P1: `orch status` and `orch submit`, cold, against `dvc queue status` and `dvc exp run --queue`."""

import tempfile
from pathlib import Path

from benchmarks import dvc, measure, place
from orchestrator.queue import embedded

#: Jobs that wait in both queues while they are asked; each submit adds one.
WAITING = 20


def figures() -> list[measure.Figure]:
    """Measure with both queues stopped and `WAITING` jobs in each."""
    with tempfile.TemporaryDirectory() as scratch, place.home() as home:
        embedded.ensure(home.settings)
        submit = [str(place.ORCH), "submit", "--data", "digits"]
        with dvc.project(Path(scratch) / "project", "true") as project:
            for _ in range(WAITING):
                measure.wall(submit, env=home.env, cwd=home.folder)
                project.run(*project.queue_command)
            status = measure.in_turns(
                lambda: measure.wall([str(place.ORCH), "status"], env=home.env, cwd=home.folder),
                lambda: measure.wall(project.status_command, env=project.env, cwd=project.folder),
            )
            submits = measure.in_turns(
                lambda: measure.wall(submit, env=home.env, cwd=home.folder),
                lambda: measure.wall(project.queue_command, env=project.env, cwd=project.folder),
            )
    return [
        measure.Figure(
            id="P1",
            what="`orch status`, 20 jobs waiting",
            peer="`dvc queue status`",
            ours=status[0],
            theirs=status[1],
            reach=1 / 3,
        ),
        measure.Figure(
            id="P1",
            what="`orch submit`",
            peer="`dvc exp run --queue`",
            ours=submits[0],
            theirs=submits[1],
            reach=1 / 2,
        ),
    ]


if __name__ == "__main__":
    print(measure.table(figures()))
