"""Trainings under seeded schedules of kills and drains, each compared byte by byte with one that nobody disturbed.

python -m tests.faults.resume --schedules 50 --seed 0
python -m tests.faults.resume --schedules 2 --network densenet121
"""

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core import specs
from tests.support import driving, forking, pictures
from worker.data import loader

#: Ways to write checkpoints and to load pictures, in turn. Five pictures a class and batches of four: three steps an
#: epoch.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"checkpoint_steps": 2},
    {"checkpoint_steps": 4},
    {"checkpoint_minutes": 0.0005},  # 30 ms: at nearly every step
    {"checkpoint_steps": 2, "loader_workers": 2},
    {},  # at the end of each epoch
)
STEPS_PER_EPOCH = 3
MOST_KILLS = 10


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a schedule came to."""

    kills: int
    drains: int
    repeated: int  #: steps, over all attempts


class Bench:
    """Runs schedules; the undisturbed training of each recipe is done once."""

    def __init__(self, socket: Path, folder: Path, **fields: Any) -> None:
        self._socket = socket
        self._folder = folder
        self._fields = {"network": "densenet_tiny", "image_size": 8, "epochs": 8, "lr": 1e-2, **fields}
        self._undisturbed: dict[str, driving.Driver] = {}
        self._data = pictures.image_folder(folder / "light", splits={"train": 5, "validation": 3}, size=(12, 10))
        self._heavy = pictures.image_folder(folder / "heavy", splits={"train": 5, "validation": 3}, size=(12, 10))
        for picture in (self._heavy / "train").rglob("*.*"):  # so many bytes are loaded by helpers
            with picture.open("ab") as file:
                file.write(bytes(loader.SMALL_SET_BYTES // 10 + 1))

    def spec(self, number: int) -> specs.JobSpec:
        """Return the recipe of a schedule."""
        variant = VARIANTS[number % len(VARIANTS)]
        workers = variant.get("loader_workers", 0)
        data = str(self._heavy if workers else self._data)
        return specs.JobSpec(**{**self._fields, "data": data, "batch_size": 4, "loader_workers": 0, **variant})

    def check(self, number: int, *, seed: int, most_kills: int = MOST_KILLS) -> Result:
        """Run schedule `number` of `seed` and compare it; fails with the schedule in its words."""
        spec = self.spec(number)
        source = random.Random(f"{seed} {number}")  # noqa: S311 - a test's dice
        blows = [driving.drawn(source, first=blow == 0) for blow in range(source.randint(1, most_kills))]
        driver = self.train(self._folder / f"schedule-{number}", spec, blows)
        whole = self._whole(spec)
        name = f"schedule {number} of seed {seed}: {blows}"
        assert _last(driver) == _last(whole), f"the last checkpoint differs: {name}"
        assert driver.losses == whole.losses, f"losses differ: {name}"
        assert _rows(driver) == _rows(whole), f"the epochs' rows differ: {name}"
        for attempt, repeated in zip(driver.attempts[:-1], driver.repeated, strict=True):
            drained = attempt.ended is not None
            most = 0 if drained else 2 * min(spec.checkpoint_steps or STEPS_PER_EPOCH, STEPS_PER_EPOCH)
            assert 0 <= repeated <= most, f"{repeated} steps repeated: {name}"
        ends = [attempt.killed for attempt in driver.attempts[:-1]]
        return Result(kills=sum(ends), drains=len(ends) - sum(ends), repeated=sum(driver.repeated))

    def train(self, root: Path, spec: specs.JobSpec, blows: list[driving.Blow]) -> driving.Driver:
        """Train under the blows, an attempt each, then undisturbed to the end."""
        driver = driving.Driver(self._socket, root, spec)
        for blow in (*blows, driving.Blow(how="none")):
            ended = driver.run(blow).ended
            if ended is not None and ended.how == "done":
                break
        log = (driver.attempts[-1].folder / "log.txt").read_text(encoding="utf-8")
        assert driver.attempts[-1].ended is not None, f"{blows}: {driver.attempts[-1].said.messages} {log}"
        return driver

    def _whole(self, spec: specs.JobSpec) -> driving.Driver:
        key = spec.digest()
        if key not in self._undisturbed:
            self._undisturbed[key] = self.train(self._folder / key, spec, [])
        return self._undisturbed[key]


def _last(driver: driving.Driver) -> bytes:
    """Return the newest checkpoint's bytes: weights, optimizer, generators, position, best accuracy."""
    told = next(attempt.said for attempt in reversed(driver.attempts) if attempt.said.rows)
    return (driver.root / told.last(driver.root)[0].path).read_bytes()


def _rows(driver: driving.Driver) -> list[dict[str, Any]]:
    return [row for attempt in driver.attempts for row in attempt.said.rows]


def main() -> int:
    """Run the schedules and print what they came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.resume")
    parser.add_argument("--schedules", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="densenet_tiny")
    given = parser.parse_args()
    small = {} if given.network == "densenet_tiny" else {"network": given.network, "image_size": 32, "epochs": 3}
    with tempfile.TemporaryDirectory() as folder, forking.server(Path(folder) / "s"):
        bench = Bench(Path(folder) / "s", Path(folder), **small)
        for number in range(given.schedules):
            done = bench.check(number, seed=given.seed)
            said = f"schedule {number}: {done.kills} kills, {done.drains} drains, {done.repeated} steps repeated"
            sys.stdout.write(f"{said}, equal to the last byte\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
