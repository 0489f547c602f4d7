"""A training that stops anywhere and goes on ends as one that never stopped: weights, rows and losses, bit for bit."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.worker.training import support
from worker import protocol
from worker.training import checkpoint, schedules, stage

SPEC = support.spec(epochs=3, seed=3)
STEPS = 9  # three epochs of three
#: Looks at the wish in a whole training: for each split of each epoch, one before it and one behind each batch.
LOOKS = 3 * ((1 + 3) + (1 + 2))


@pytest.fixture(scope="module")
def whole(data: protocol.DatasetInfo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, support.Follower]:
    """A training that was never stopped."""
    root = tmp_path_factory.mktemp("whole")
    follower = support.Follower()
    ended = stage.train(data, support.assignment(root, SPEC), follower)
    assert ended == protocol.Ended(how="done", last_step=STEPS)
    assert follower.looks == LOOKS
    return root, follower


def run(data: protocol.DatasetInfo, root: Path, stops: list[int]) -> list[support.Follower]:
    """Train in attempts that stop at these looks, then to the end; return their followers."""
    followers: list[support.Follower] = []
    for attempt, stop in enumerate([*stops, LOOKS + 1], start=1):
        follower = support.Follower(support.stop_at(stop))
        told = support.assignment(root, SPEC, attempt=attempt, earlier=tuple(followers))
        ended = stage.train(data, told, follower)
        followers.append(follower)
        if ended.how == "done":
            break
    assert ended == protocol.Ended(how="done", last_step=STEPS)
    return followers


def check(root: Path, followers: list[support.Follower], whole: tuple[Path, support.Follower]) -> None:
    whole_root, one = whole
    assert [step for follower in followers for step in follower.steps] == one.steps  # none twice, none missing
    assert [row for follower in followers for row in follower.rows] == one.rows
    written = [(follower, root) for follower in followers if follower.of(protocol.CheckpointWritten)]
    info, tensors = written[-1][0].last(root)
    whole_info, whole_tensors = one.last(whole_root)
    assert support.same(tensors, whole_tensors)
    assert (info.step, info.epoch, info.accuracy, info.best) == (
        whole_info.step,
        whole_info.epoch,
        whole_info.accuracy,
        whole_info.best,
    )


@pytest.mark.parametrize("stop", range(1, LOOKS + 1))
def test_stopped_anywhere_it_ends_as_if_never_stopped(
    data: protocol.DatasetInfo, root: Path, whole: tuple[Path, support.Follower], stop: int
) -> None:
    check(root, run(data, root, [stop]), whole)


@given(stops=st.lists(st.integers(1, LOOKS), min_size=2, max_size=6))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stopped_again_and_again_it_ends_as_if_never_stopped(
    data: protocol.DatasetInfo,
    tmp_path_factory: pytest.TempPathFactory,
    whole: tuple[Path, support.Follower],
    stops: list[int],
) -> None:
    root = tmp_path_factory.mktemp("again")
    check(root, run(data, root, stops), whole)


def test_extended_it_ends_as_if_it_had_had_so_many_epochs_from_the_start(
    data: protocol.DatasetInfo, root: Path, whole: tuple[Path, support.Follower]
) -> None:
    short = support.Follower()
    stage.train(data, support.assignment(root, SPEC.model_copy(update={"epochs": 1})), short)
    rest = support.Follower()
    stage.train(data, support.assignment(root, SPEC, attempt=2, earlier=(short,)), rest)
    assert rest.of(protocol.Resumed) == [protocol.Resumed(attempt=1, step=3)]
    check(root, [short, rest], whole)


def test_extended_a_schedule_is_computed_on_the_new_number(data: protocol.DatasetInfo, root: Path) -> None:
    recipe = SPEC.model_copy(update={"schedule": "cosine", "epochs": 1})
    short = support.Follower()
    stage.train(data, support.assignment(root, recipe), short)
    rest = support.Follower()
    longer = recipe.model_copy(update={"epochs": 3})
    stage.train(data, support.assignment(root, longer, attempt=2, earlier=(short,)), rest)
    rates = [value for _, name, value in rest.steps if name == "lr"]
    assert rates == [schedules.rate(longer, step=step, total=STEPS) for step in range(3, STEPS)]


def test_it_says_first_where_it_goes_on(data: protocol.DatasetInfo, root: Path) -> None:
    first, second = run(data, root, [3])
    assert first.messages[0] == protocol.Resumed(attempt=None, step=0)
    assert second.messages[0] == protocol.Resumed(attempt=1, step=2)


def test_a_stop_before_the_first_step_writes_nothing(data: protocol.DatasetInfo, root: Path) -> None:
    follower = support.Follower(support.stop_at(1))
    ended = stage.train(data, support.assignment(root, SPEC), follower)
    assert ended == protocol.Ended(how="stopped", last_step=0)
    assert not list(root.rglob("*.safetensors"))


def test_a_stop_at_once_after_a_resume_writes_no_second_checkpoint(data: protocol.DatasetInfo, root: Path) -> None:
    first, again = support.Follower(support.stop_at(3)), support.Follower(support.stop_at(1))
    stage.train(data, support.assignment(root, SPEC), first)
    ended = stage.train(data, support.assignment(root, SPEC, attempt=2, earlier=(first,)), again)
    assert ended == protocol.Ended(how="stopped", last_step=2)
    assert not again.of(protocol.CheckpointWritten)


def test_a_finished_training_just_ends(
    data: protocol.DatasetInfo, root: Path, whole: tuple[Path, support.Follower]
) -> None:
    whole_root, one = whole
    follower = support.Follower()
    given = support.assignment(root, SPEC, attempt=2, earlier=(one,), artifact_root=str(whole_root))
    assert stage.train(data, given, follower) == protocol.Ended(how="done", last_step=STEPS)
    told = [protocol.Resumed, protocol.Environment, protocol.Progress]
    assert [type(message) for message in follower.messages] == told


def test_an_epochs_seconds_span_its_attempts(data: protocol.DatasetInfo, root: Path) -> None:
    first, second = run(data, root, [3])
    saved = first.last(root)[0]
    before = checkpoint.read(root / saved.path, size=saved.bytes, sha256=saved.sha256).state.sums.seconds
    assert second.of(protocol.CheckpointWritten)[0].metrics[0].seconds > before > 0
