"""`orch submit`: what it stores, what it says, what it refuses."""

import json
import threading
from pathlib import Path

import pytest

from orchestrator import config, errors
from orchestrator.core import jobs, states
from orchestrator.service import bell
from orchestrator.store import base, sql
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("store")  # a database that has its schema


def test_the_id_that_is_printed_is_in_the_database(orch: Orch, store: base.Store) -> None:
    ran = orch("submit", "--data", "digits", "--lr", "1e-3", "--name", "first", "--tag", "a", "--tag", "b")
    job = store.find("first")
    assert (ran.code, ran.out) == (0, f"{job.id}\tqueued\t0\n")
    assert (job.spec.data, job.spec.lr, job.tags, job.user) == ("digits", 1e-3, ("a", "b"), "tester")
    assert "No worker is running" in ran.err
    assert "orch up -d" in ran.err


def test_quiet_prints_the_id_alone_and_the_place_counts_what_is_ahead(orch: Orch, store: base.Store) -> None:
    first = orch("submit", "--data", "digits", "-q").out
    assert store.get(first.strip()).state is states.JobState.QUEUED
    assert orch("submit", "--data", "digits").rows[0][2] == "1"


def test_a_job_file_is_overridden_by_flags(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("data: digits\nlr: 1e-2\nepochs: 7\nname: from-file\npriority: 3\n", encoding="utf-8")
    orch("submit", str(file), "--epochs", "2", "--priority", "0")
    job = store.find("from-file")
    assert (job.spec.lr, job.spec.epochs, job.priority) == (1e-2, 2, 0)


def test_a_job_comes_from_stdin(orch: Orch, store: base.Store) -> None:
    orch("submit", "-", stdin=b'data = "digits"\nname = "piped"\n')
    assert store.find("piped").spec.image_size == 32


def test_json_holds_the_job_and_what_would_have_been_said(orch: Orch) -> None:
    told = json.loads(orch("submit", "--data", "digits", "--json").out)
    assert (told["schema_version"], told["is_new"], told["ahead"]) == (1, True, 0)
    assert told["job"]["state"] == "queued"
    assert told["job"]["spec"]["image_size"] == 32
    assert any("No worker" in note for note in told["notes"])


def test_a_known_key_returns_its_job_and_refuses_another_spec(orch: Orch, store: base.Store) -> None:
    first = orch("submit", "--data", "digits", "--idempotency-key", "k", "-q").out
    again = orch("submit", "--data", "digits", "--idempotency-key", "k")
    assert again.rows[0][0] == first.strip()
    assert "idempotency key is known" in again.err
    assert orch("submit", "--data", "digits", "--idempotency-key", "k", "--lr", "1").code == 2
    assert len(store.jobs(jobs.JobFilter())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--epoch", "3"), "Did you mean --epochs"),
        (("--epochs", "-3"), "epochs = '-3'"),
        (("--lr", "1e9"), "lr = '1e9'"),
        (("--lr", "nan"), "lr"),
        (("--batch-size", "1"), "batch_size = '1'"),
        (("--image-size", "many"), "image_size = 'many'"),
        (("--network", "densenet12"), "did you mean 'densenet121'?"),
        (("--blocks", "6,x"), "blocks.1 = 'x'"),
        (("--data", "digits", "--image-size", "8", "--stem", "imagenet"), "too small"),
        (("--priority", "high"), "--priority"),
        (("gone.toml",), "gone.toml cannot be read"),
        (("",), "The job file . cannot be read"),
        (("--recipe", ""), "There is no recipe ''"),
        (("--weights", "gone.pth"), "There are no weights 'gone.pth'"),
        (("--weights", "imagenet"), "weights imagenet are for densenet121_imagenet"),
        (("--train", "head"), "needs weights"),
    ],
)
def test_what_cannot_run_is_refused_with_its_name_and_leaves_nothing(
    orch: Orch, store: base.Store, words: tuple[str, ...], said: str
) -> None:
    ran = orch("submit", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert store.jobs(jobs.JobFilter()) == []


def test_a_dry_run_shows_origins_and_queues_nothing(orch: Orch, store: base.Store) -> None:
    rows = orch("submit", "--data", "digits", "--lr", "1e-3", "--dry-run").rows
    assert ["lr", "0.001", "flag"] in rows
    assert ["image_size", "32", "data digits"] in rows
    assert ["epochs", "5", "default"] in rows
    assert store.jobs(jobs.JobFilter()) == []


def test_the_notebooks_job_on_a_cpu_gets_a_warning_and_a_command_to_paste(orch: Orch) -> None:
    ran = orch("submit", "--lr", "3e-4", "--image-size", "200", "--dry-run")
    assert "GMAC a picture" in ran.err
    assert "orch submit --image-size 64 --lr 3e-4 --batch-size 16" in ran.err
    assert "takes about 7.0 GiB" in ran.err
    assert "GiB with --memory lean" in ran.err


def test_a_broker_that_is_away_costs_nothing(orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_BROKER_URL", "redis://:canary@127.0.0.1:1/0")
    ran = orch("submit", "--data", "digits")
    assert ran.code == 0
    assert store.get(ran.rows[0][0]).state is states.JobState.QUEUED
    assert "The broker is away" in ran.err
    assert "canary" not in ran.err


def test_credentials_in_the_url_of_the_data_show_nowhere(orch: Orch, store: base.Store) -> None:
    data = "https://ada:canary@host/pets.zip?token=canary"
    for words in (
        ("submit", "--data", data),
        ("submit", "--data", data, "--json"),
        ("submit", "--data", data, "--dry-run"),
        ("submit", "--data", data, "--dry-run", "--json"),
        ("list",),
        ("list", "--json"),
        ("status",),
        ("status", "@latest"),
        ("status", "@latest", "--json"),
    ):
        ran = orch(*words)
        assert ran.code == 0
        assert "https://***@host/pets.zip?***" in ran.out + ran.err
        assert "canary" not in ran.out + ran.err
    assert store.find("@latest").spec.data == data  # a worker needs all of it


def test_a_required_broker_that_is_away_is_code_4_and_names_the_job(orch: Orch, store: base.Store) -> None:
    ran = orch("submit", "--data", "digits", "--require-broker")
    assert (ran.code, ran.out) == (4, "")
    assert store.find("@latest").id in ran.err


def test_a_database_that_is_away_is_code_4_without_its_password(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_DATABASE_URL", "postgresql://ada:canary@127.0.0.1:1/orch")
    ran = orch("submit", "--data", "digits")
    assert (ran.code, ran.out) == (4, "")
    assert "Traceback" not in ran.err
    assert "canary" not in ran.err


@pytest.mark.parametrize(("flag", "column"), [("--wait", 1), ("--follow", 2)])  # what is followed has a time before it
@pytest.mark.parametrize("verb", ["submit", "clone"])
def test_waiting_returns_with_the_code_of_the_job(
    orch: Orch, store: base.Store, verb: str, flag: str, column: int
) -> None:
    first = parts.submit(store).id

    def cancel() -> None:
        job = until(lambda: [one for one in store.jobs(jobs.JobFilter()) if one.id != first])[0]
        store.cancel(job.id, actor="somebody")

    person = threading.Thread(target=cancel)
    person.start()
    ran = orch(verb, *(["--data", "digits"] if verb == "submit" else [first]), flag)
    person.join()
    assert ran.code == 6
    assert ran.rows[-1][column] == "cancelled"


@pytest.mark.parametrize(("verb", "rings"), [("submit", "_ask"), ("clone", "ring")])
def test_ctrl_c_while_the_broker_is_asked_names_the_job_that_is_stored(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch, verb: str, rings: str
) -> None:
    first = parts.submit(store).id

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bell, rings, interrupt)
    ran = orch(verb, *(["--data", "digits"] if verb == "submit" else [first]))
    job = store.find("@latest")
    assert (ran.code, ran.out, job.id != first) == (130, "", True)
    assert f"note: Job {job.id} is stored all the same." in ran.err


@pytest.mark.parametrize("verb", ["submit", "clone"])
@pytest.mark.parametrize("look", ["ahead", "workers"])
def test_a_database_that_goes_away_behind_the_commit_names_the_job_that_is_stored(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch, verb: str, look: str
) -> None:
    first = parts.submit(store).id

    def away(*_: object) -> None:
        raise errors.DatabaseUnavailable

    monkeypatch.setattr(sql.SqlStore, look, away)
    ran = orch(verb, *(["--data", "digits"] if verb == "submit" else [first]))
    job = store.find("@latest")
    assert (ran.code, ran.out, job.id != first) == (4, "", True)
    assert f"try: Job {job.id} is stored all the same" in ran.err


def test_a_running_worker_is_not_asked_for(orch: Orch, settings: config.Settings) -> None:
    heard_of(settings)
    assert "No worker" not in orch("submit", "--data", "digits").err


def test_weights_may_be_a_jobs_by_its_name(orch: Orch, store: base.Store) -> None:
    held = parts.training(store, name="mother")
    assert "has no checkpoint to take weights from" in orch("submit", "--weights", "mother").err
    store.record_checkpoint(held, parts.checkpoint(held, 3, accuracy=0.5, epoch=1), parts.epoch_rows(1))
    ran = orch("submit", "--weights", "mother", "--train", "head", "-q")
    job = store.get(ran.out.strip())
    assert (job.spec.weights, job.spec.train, job.parent) == (f"job:{held.id}", "head", held.id)
    cloned = store.get(orch("clone", job.id).rows[0][0])
    assert (cloned.spec, cloned.start_step) == (job.spec, 3)
    refused = orch("submit", "--weights", "mother", "--network", "densenet_bc_40_12")
    assert refused.code == 2
    assert "do not fit the network" in refused.err
    assert orch("delete", "--yes", held.id).code != 0


def test_a_path_that_is_not_here_is_told_and_stored_all_the_same(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    for data in (str(tmp_path / "picturs"), f"file://{tmp_path}/picturs"):
        ran = orch("submit", "--data", data)
        assert (ran.code, store.find("@latest").spec.data) == (0, data)
        assert f"note: data: there is no {tmp_path}/picturs on this host." in ran.err
        assert "there is no" in orch("submit", "--data", data, "--dry-run").err
    (tmp_path / "picturs").mkdir()
    assert "there is no" not in orch("submit", "--data", data).err


def test_a_job_is_waited_for_in_one_way_that_is_known(orch: Orch, store: base.Store) -> None:
    first = parts.submit(store, name="first")
    twice = orch("submit", "--after", "first", "--after", f"{first.id}:any")
    assert (twice.code, f"{first.id} cannot be waited for in two ways" in twice.err) == (2, True)
    never = orch("submit", "--after", "first:never")
    assert (never.code, f"'never' is no way to wait for job {first.id}" in never.err) == (2, True)
    assert orch("submit", "--after", "nothing:never").code == 3
    assert orch("submit", "--after", "first", "--after", f"{first.id}:ok").code == 0
