"""A training that is killed and resumed ends as one that nobody disturbed; `make soak` runs more of the schedules."""

from pathlib import Path

import pytest
import safetensors.torch

from orchestrator.core import specs
from tests.faults import resume
from tests.support import driving, options
from worker.models import zoo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SCHEDULES = 5
SEED = 0


@pytest.fixture(scope="module")
def bench(fork_server: Path, tmp_path_factory: pytest.TempPathFactory) -> resume.Bench:
    return resume.Bench(fork_server, tmp_path_factory.mktemp("schedules"))


@pytest.mark.parametrize("number", range(SCHEDULES))
def test_kills_and_drains_change_no_bit_and_repeat_little(bench: resume.Bench, number: int) -> None:
    assert bench.check(number, seed=SEED).kills > 0


@pytest.mark.parametrize("place", driving.PLACES)
def test_a_kill_in_the_write_of_a_checkpoint_costs_the_steps_since_the_one_before(
    bench: resume.Bench, tmp_path: Path, place: str
) -> None:
    spec = bench.spec(0)
    driver = bench.train(tmp_path, spec, [driving.Blow(how="place", count=2, place=place)])
    killed, second = driver.attempts
    assert killed.killed
    assert second.resumed_at == 2
    assert killed.steps in {3, 4}  # the next step goes on meanwhile
    assert driver.repeated == [killed.steps - 2]


def test_a_densenet121_that_is_killed_ends_as_one_that_is_not(fork_server: Path, tmp_path: Path) -> None:
    large = resume.Bench(fork_server, tmp_path, network="densenet121", image_size=16, epochs=1)
    assert large.check(0, seed=SEED, most_kills=1).kills == 1


@pytest.mark.parametrize("part", [{"train": "head"}, {"train": "last-block"}, {"head_epochs": 4, "head_lr": 0.05}])
def test_kills_change_no_bit_of_a_training_of_parts(fork_server: Path, tmp_path: Path, part: dict[str, object]) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(zoo.build(specs.JobSpec(network="densenet_tiny"), 5).state_dict(), path)
    bench = resume.Bench(fork_server, tmp_path, weights=str(path), **part)
    assert bench.check(0, seed=SEED, most_kills=3).kills > 0


def test_kills_change_no_bit_of_a_training_with_every_option_on(fork_server: Path, tmp_path: Path) -> None:
    bench = resume.Bench(fork_server, tmp_path, **options.ALL | {"patience": None})
    assert sum(bench.check(number, seed=SEED).kills for number in (0, 3)) > 1  # alone, and with two loader processes
