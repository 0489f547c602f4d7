"""What a job demands of its worker, from the command line to `why`."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator import Client, config, errors
from orchestrator.core import jobs, resources, specs, states
from orchestrator.store import sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch, living_worker
from tests.support import pools

A100 = resources.Device(id="GPU-0", kind="gpu", name="NVIDIA A100", memory=42 * 10**9)
WANTED = resources.Demand(gpus=2, device="a100", gpu_memory=40 * 10**9, labels=("bigdisk", "lab=a"))


@pytest.fixture
def store(migrated: config.Settings) -> Iterator[sql.SqlStore]:
    with closing(sql.open_store(migrated)) as opened:
        yield opened


def test_flags_go_before_the_job_file(orch: Orch, store: sql.SqlStore, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('gpus = 2\ndevice = "H100"\ngpu_memory = "40GB"\nlabels = ["lab=a", "bigdisk"]\n')
    flags = ("--device", "A100")
    job_id = orch("submit", str(file), *flags, "-q").out.strip()
    assert store.get(job_id).demand == WANTED
    again = orch("clone", job_id, "--label", "fast", "--gpu-memory", "", "--gpus", "1", "-q").out.strip()
    assert store.get(again).demand == resources.Demand(device="a100", labels=("fast",))


def test_python_asks_for_the_same(settings: config.Settings) -> None:
    with Client(settings.home) as client:
        job = client.submit(gpus=2, device="A100", gpu_memory="40GB", labels=["lab=a", "bigdisk"])
        assert job.demand == WANTED
        with pytest.raises(errors.InvalidSpec, match="no amount of memory"):
            client.submit(gpu_memory="much")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gpu-memory", "10"), "it is no amount of memory"),
        (("--device", "cpu", "--gpu-memory", "1GB"), "the device is cpu"),
        (("--label", "big disk"), "cannot be a label"),
        (("--gpus", "0"), "gpus"),
    ],
)
def test_what_can_be_no_demand_is_refused_before_anything_is_stored(
    orch: Orch, flags: tuple[str, ...], said: str
) -> None:
    ran = orch("submit", *flags)
    assert (ran.code, said in ran.err) == (2, True)
    assert orch("list").out == ""


def test_who_can_never_run_it_is_told_at_submit_and_by_why(orch: Orch, store: sql.SqlStore) -> None:
    store.register(living_worker(labels=("lab=b",), slots=resources.ONE_CPU.devices))
    job = json.loads(orch("submit", "--device", "gpu", "--label", "lab=a", "--json").out)
    (note,) = [note for note in job["notes"] if note.startswith("No worker")]
    lacks = "worker-a lacks the label lab=a; has no GPU: it has CPU"
    assert note == f"No worker that runs now can ever run it: {lacks}. The job waits for one that can."
    store.database.write(lambda connection: connection.exec_driver_sql("UPDATE jobs SET stage = 'train'"))
    (verdict,) = json.loads(orch("why", job["job"]["id"], "--json").out)["workers"]
    assert (verdict["takes"], verdict["why"]) == (False, "lacks the label lab=a; has no GPU: it has CPU")
    store.register(living_worker(labels=("lab=a",), slots=(A100,)))
    assert json.loads(orch("why", job["job"]["id"], "--json").out)["workers"][0]["takes"] is True


def test_looking_shows_demands_and_labels(orch: Orch, store: sql.SqlStore) -> None:
    store.register(living_worker(labels=("lab=a",), slots=(A100,)))
    job_id = orch("submit", "--device", "a100", "--label", "lab=a", "-q").out.strip()
    assert orch("list", "--columns", "job,demand").rows == [[job_id, "device a100,label lab=a"]]
    (listed,) = [json.loads(line) for line in orch("worker", "list", "--json").out.splitlines()]
    assert (listed["labels"], listed["slots"][0]["name"]) == (["lab=a"], "NVIDIA A100")
    assert json.loads(orch("status", job_id, "--json").out)["job"]["demand"]["device"] == "a100"


def test_labels_of_a_worker_are_a_setting(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_LABELS", "lab=a, bigdisk")
    assert config.load().label_names == ("bigdisk", "lab=a")
    monkeypatch.setenv("ORCH_LABELS", "big disk")
    ran = orch("status")
    assert (ran.code, "A label has 1 to 100" in ran.err or "a label has 1 to 100" in ran.err) == (2, True)


def test_why_says_who_holds_devices_back_for_a_job_on_several(orch: Orch, store: sql.SqlStore) -> None:
    desk = pools.Devices(2)
    store.register(living_worker(devices=("CPU", "CPU"), slots=desk.offer.devices))
    small, gang, later = (_trainable(store, gpus) for gpus in (1, 2, 1))
    assert parts.claimed(store, states.Stage.TRAIN, pool=desk.slot(0)).id == small
    said = {job_id: json.loads(orch("why", job_id, "--json").out)["workers"][0]["why"] for job_id in (gang, later)}
    assert said == {
        gang: "takes it when 2 devices are free at once, of which 1 is, and holds those back from later jobs: "
        f"it trains {small}",
        later: f"holds its free devices back for {gang}, which trains on 2 together",
    }
    assert parts.claim(store, states.Stage.TRAIN, pool=desk.slot(1)) is None
    store.cancel(gang, actor="ada")
    assert json.loads(orch("why", later, "--json").out)["workers"][0]["why"].startswith("has a free device")


def test_why_knows_which_device_is_free(orch: Orch, store: sql.SqlStore) -> None:
    desk = pools.Devices(1, "A100")
    store.register(living_worker(devices=("CPU", "A100"), slots=desk.offer.devices))
    small, big, any_one = _trainable(store, 1, device="cpu"), _trainable(store, 1, device="a100"), _trainable(store, 1)
    assert parts.claimed(store, states.Stage.TRAIN, pool=desk.slot(1)).id == big
    waits = _trainable(store, 1, device="a100")
    said = {job_id: json.loads(orch("why", job_id, "--json").out)["workers"][0]["why"] for job_id in (waits, small)}
    assert said == {
        waits: f"takes it when a device is free: it trains {big}",  # though one of two slots is
        small: "has a free device and takes it when it is its turn",
    }
    assert parts.claimed(store, states.Stage.TRAIN, pool=desk.slot(0)).id == small
    store.finish(store_claim(store, big), parts.DONE)
    assert parts.claimed(store, states.Stage.EVALUATE, pool=desk.slot(1)).id == big
    why = json.loads(orch("why", any_one, "--json").out)["workers"][0]["why"]
    assert why == f"takes it when a device is free: it trains {small} and evaluates {big}"


def store_claim(store: sql.SqlStore, job_id: str) -> jobs.Claim:
    """Return the claim of a job that runs."""
    job = store.get(job_id)
    return jobs.Claim(job=job, attempt=job.attempt, checkpoints=())


def test_a_device_that_is_held_back_is_none_of_another_kind(orch: Orch, store: sql.SqlStore) -> None:
    desk = pools.Devices(1, "A100", "A100")
    store.register(living_worker(devices=("CPU", "A100", "A100"), slots=desk.offer.devices))
    _trainable(store, 1)
    parts.claimed(store, states.Stage.TRAIN, pool=desk.slot(1))
    gang, small = _trainable(store, 2, device="a100"), _trainable(store, 1)
    why = json.loads(orch("why", small, "--json").out)["workers"][0]["why"]
    assert why == "has a free device and takes it when it is its turn"
    assert {job.id for job in store.held_back().values()} == {gang}


def test_a_worker_that_may_take_no_other_says_so(orch: Orch, store: sql.SqlStore) -> None:
    store.register(living_worker(slots=resources.ONE_CPU.devices))
    job_id = _trainable(store, 1)
    store.beat_worker("worker-a", states.WorkerState.SPENT)
    (verdict,) = json.loads(orch("why", job_id, "--json").out)["workers"]
    assert (verdict["takes"], "as `--max-jobs` lets it" in verdict["why"]) == (False, True)
    assert [row[1] for row in orch("worker", "list").rows] == ["spent"]
    assert json.loads(orch("top", "--json").out)["workers"][0]["state"] == "spent"
    notes = json.loads(orch("submit", "--json").out)["notes"]
    assert any("worker-a has taken on as many jobs" in note for note in notes)


def test_a_job_on_several_devices_makes_all_of_them_busy(orch: Orch, store: sql.SqlStore) -> None:
    desk = pools.Devices(3)
    store.register(living_worker(devices=("CPU",) * 3, slots=desk.offer.devices))
    _trainable(store, 2)
    parts.claimed(store, states.Stage.TRAIN, pool=desk.slot(0))
    assert json.loads(orch("top", "--json").out)["busy"] == 2


def _trainable(store: sql.SqlStore, gpus: int, *, device: str | None = None) -> str:
    spec = specs.JobSpec(gpus=gpus, batch_size=16)
    job = parts.submit(store, spec=spec, demand=resources.Demand(device=device))
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.DONE)
    return job.id
