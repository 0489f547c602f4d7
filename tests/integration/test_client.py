import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import Client, JobSpec, config, errors
from orchestrator.core import jobs, specs, states
from orchestrator.store import base
from tests.contract import parts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(store: base.Store, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the installation of `store`, whose broker is away."""
    del store  # made, and closed in the end
    monkeypatch.setenv("ORCH_USER", "tester")
    with Client(settings.home) as opened:
        yield opened


def test_the_package_alone_loads_nothing() -> None:
    asked = "import sys; before = set(sys.modules); import orchestrator; print(*set(sys.modules) - before)"
    said = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in said.stdout.split()} - sys.stdlib_module_names == {"orchestrator"}


def test_every_name_of_the_package_is_there() -> None:
    for name in orchestrator.__all__:
        assert getattr(orchestrator, name).__name__ == name
    assert set(orchestrator.__all__) <= set(dir(orchestrator))
    with pytest.raises(AttributeError, match="Klient"):
        _ = orchestrator.Klient


def test_fields_are_those_of_submit(client: Client) -> None:
    job = client.submit(data="digits", epochs=2, recipe="digits", name="first", tags=["a", "b", "a"], priority=2)
    assert job.spec == specs.parse({**dict(job.spec), "epochs": 2})
    assert (job.name, job.tags, job.priority, job.user) == ("first", ("a", "b"), 2, "tester")
    assert client.get("first") == client.get(job) == client.list()[0]


def test_a_spec_is_taken_whole(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    assert client.submit(JobSpec(data="set", epochs=3)).spec == JobSpec(data=str(tmp_path / "set"), epochs=3)
    with pytest.raises(errors.InvalidSpec, match="no data set"):
        client.submit(JobSpec(data="elsewhere"))
    with pytest.raises(errors.UsageError, match="not both"):
        client.submit(JobSpec(), epochs=2)


def test_what_cannot_be_run_is_named_and_not_stored(client: Client) -> None:
    with pytest.raises(errors.InvalidSpec, match="did you mean 'epochs'"):
        client.submit(epoch=3)
    with pytest.raises(errors.InvalidSpec, match="cannot be a name"):
        client.submit(name="@latest")
    assert client.list() == ()


def test_a_key_returns_the_earlier_job(client: Client) -> None:
    first = client.submit(seed=1, idempotency_key="k")
    assert client.submit(seed=1, idempotency_key="k") == first
    with pytest.raises(errors.IdempotencyConflict):
        client.submit(seed=2, idempotency_key="k")


def test_a_broker_that_is_away_is_an_error_only_where_it_is_needed(client: Client) -> None:
    with pytest.raises(errors.BrokerUnavailable, match="is stored"):
        client.submit(require_broker=True)
    assert len(client.list()) == 1


def test_jobs_wait_for_others_and_for_their_hour(client: Client) -> None:
    first = client.submit()
    second = client.submit(after=[first], not_before=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the case
    third = client.submit(after=[f"{second.id}:any"])
    assert second.blocked
    assert third.blocked
    assert second.start_after == datetime(2030, 1, 1).astimezone()


def test_lists_are_filtered(client: Client) -> None:
    jobs_ = [client.submit(tags=[tag]) for tag in ("a", "a", "b")]
    client.cancel(jobs_[0])
    assert [job.id for job in client.list(tags=["a"], states=["queued"])] == [jobs_[1].id]
    assert [job.id for job in client.list(limit=1)] == [jobs_[2].id]
    assert client.list(user="nobody") == ()
    with pytest.raises(errors.UsageError, match="is no state"):
        client.list(states=["qeued"])


def test_verbs_have_their_effect(client: Client) -> None:
    job = client.submit()
    assert client.pause(job).state is states.JobState.PAUSED
    assert client.resume(job).state is states.JobState.QUEUED
    assert client.cancel(job).state is states.JobState.CANCELLED
    assert client.retry(job).run == 2
    with pytest.raises(errors.IllegalMove):
        client.resume(job)
    with pytest.raises(errors.NotFound):
        client.cancel("nothing")


def test_waiting_ends_with_the_job_or_with_patience(client: Client) -> None:
    job = client.submit()
    with pytest.raises(errors.TimedOut):
        client.wait(job, timeout=0)
    client.cancel(job)
    assert client.wait(job, check=False).state is states.JobState.CANCELLED
    with pytest.raises(errors.JobCancelled):
        client.wait(job)


def test_metrics_are_rows_and_a_table(client: Client, store: base.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = parts.training(store)
    store.record_checkpoint(held, parts.checkpoint(held, 3, epoch=1), parts.epoch_rows(1))
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="one\ntwo\n"))
    metrics = client.metrics(held.id)
    assert [(row.epoch, row.split, row.loss) for row in metrics] == [(1, "train", 0.7), (1, "val", 0.7)]
    assert client.evaluation(held.id) is None
    assert client.logs(held.id) == "one\ntwo"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.OrchError, match="without pandas"):
        metrics.to_dataframe()
    # pandas itself is large: its constructor takes rows and columns so.
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda data, columns: (data, columns)))
    rows, columns = metrics.to_dataframe()
    assert [jobs.EpochMetric(**row) for row in rows] == list(metrics)
    assert columns[:3] == ["epoch", "split", "loss"]


def test_predictions_need_a_checkpoint(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="no checkpoint yet"):
        client.predict(client.submit(), [__file__])


def test_jobs_are_found_by_what_the_client_returned(client: Client) -> None:
    job = client.submit()
    assert client.get(replace(job, name="other")).id == job.id  # the id counts, not what the object says


def test_an_installation_is_backed_up_and_put_elsewhere(client: Client, tmp_path: Path) -> None:
    job = client.submit(data="digits", name="first")
    written = client.backup(tmp_path / "all.zip")
    assert (written.path, written.manifest.left_out) == (tmp_path / "all.zip", ())
    with pytest.raises(errors.UsageError):
        client.backup(tmp_path / "all.zip")
    with pytest.raises(errors.IllegalMove, match="has 1 job"):
        client.restore(tmp_path / "all.zip")
    with Client(tmp_path / "elsewhere") as other:
        restored = other.restore(tmp_path / "all.zip")
        assert restored.states == {"queued": 1}
        assert other.get(job.id).name == "first"


def test_what_is_no_bundle_is_not_reproduced(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound):
        client.reproduce(tmp_path / "nothing.zip")
    assert client.list() == ()


def test_one_thing_alone_is_one_and_not_its_letters(client: Client) -> None:
    first = client.submit(tags="abc", labels="bigdisk")
    assert (first.tags, first.demand.labels) == (("abc",), ("bigdisk",))
    second = client.submit(after=first.id)  # a text, of which each letter would be a job
    assert client.list(tags="abc", states="queued") == (client.get(first),)
    assert client.list(states=states.JobState.QUEUED) == (client.get(second), client.get(first))
    with pytest.raises(errors.NotFound, match=r"no picture seven\.png"):
        client.predict(first, "seven.png")


@pytest.mark.parametrize(
    "given", [{"spec": "digits"}, {"name": 5}, {"priority": "high"}, {"priority": True}, {"after": [3]}]
)
def test_arguments_of_another_kind_are_named(client: Client, given: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidSpec, match="it is no"):
        client.submit(**given)
    assert client.list() == ()


def test_what_is_no_job_is_not_looked_up(client: Client) -> None:
    with pytest.raises(errors.InvalidSpec, match="job = 5: it is no Job or str"):
        client.get(5)  # type: ignore[arg-type] # as in a notebook
