"""`orch bundle` and `orch reproduce`: what is kept, what is submitted again, and the verdicts with their codes."""

import hashlib
import json
import shlex
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic
import pytest

from orchestrator import Client, config, errors
from orchestrator.core import jobs, provenance, specs, states
from orchestrator.service import archive, bundle, follow, weightfile
from orchestrator.store import sql
from tests.contract import parts
from tests.contract.test_fences import EVALUATION
from tests.integration.cli.conftest import Orch, heard_of
from tests.integration.cli.test_edge import ORCH

DATA = "d" * 64


def safetensors(**tensors: bytes) -> bytes:
    """Return a file of tensors of bytes, in the order in which they are given."""
    header, end = {}, 0
    for name, content in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps({"__metadata__": {"orch": "{}"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def of_content(content_hash: str) -> jobs.Dataset:
    counts = {"train": 10, "val": 10}
    return jobs.Dataset(
        hash=content_hash, source="digits", classes=("cat", "dog"), counts=counts, bytes=10, path="sets/d"
    )


def trained(
    store: sql.SqlStore, settings: config.Settings, *, weights: bytes = b"one", accuracy: float = 0.5, **fields: Any
) -> jobs.Job:
    """Bring a job through its three stages, with a real file of its checkpoint."""
    data_hash = fields.pop("data_hash", DATA)
    job = parts.submit(store, **{"spec": specs.parse({"data": "digits", "epochs": 1}), **fields})
    return ended(store, settings, job.id, weights=weights, accuracy=accuracy, data_hash=data_hash)


def ended(
    store: sql.SqlStore, settings: config.Settings, job_id: str, *, weights: bytes, accuracy: float, data_hash: str
) -> jobs.Job:
    held = parts.claimed(store, states.Stage.DOWNLOAD)
    assert held.id == job_id
    store.record_dataset(held, of_content(data_hash))
    store.finish(held, parts.DONE)
    held = parts.claimed(store, states.Stage.TRAIN)
    store.record_resumed(held, attempt=None, step=0)
    store.record_environment(held, parts.ENVIRONMENT)
    content = safetensors(**{"model.a": weights, "optimizer.a": held.id.encode()})
    path = f"{held.id}/attempt-{held.attempt:04}/step-0000010.safetensors"
    file = settings.artifact_dir / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    point = parts.checkpoint(held, 10, accuracy=accuracy, epoch=1)
    point = jobs.Checkpoint(**vars(point) | {"path": path, "bytes": len(content), "sha256": sha256})
    store.record_checkpoint(held, point, parts.epoch_rows(1, accuracy=accuracy))
    store.finish(held, parts.DONE)
    held = parts.claimed(store, states.Stage.EVALUATE)
    measured = {"attempt": held.attempt, "checkpoint_step": 10, "checkpoint_sha256": sha256, "accuracy": accuracy}
    store.record_evaluation(held, jobs.Evaluation(**vars(EVALUATION) | measured | {"images": 1000}))
    store.finish(held, parts.DONE)
    return store.get(job_id)


def test_a_bundle_says_what_a_result_stands_on(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path
) -> None:
    source = provenance.Source(commit="c" * 40, dirty=True, diff="-a\n+b\n", diff_sha256="e" * 64, diff_bytes=6)
    known = provenance.Provenance(origins={"epochs": "flag"}, source=source)
    spec = specs.parse({"data": "https://ada:secret@example.org/pets.zip", "epochs": 1})
    job = trained(store, settings, spec=spec, provenance=known)
    ran = orch("bundle", job.id, "-o", str(tmp_path))
    assert (ran.code, ran.out.strip()) == (0, str(tmp_path / f"{job.id}.zip"))
    kept = bundle.read(tmp_path / f"{job.id}.zip")
    assert (kept.spec_hash, kept.data.hash, kept.origins["epochs"], kept.source) == (
        job.spec_hash,
        DATA,
        "flag",
        source,
    )
    assert (kept.environments, kept.extended) == ((parts.ENVIRONMENT,), False)
    assert [(row.epoch, row.split, row.accuracy) for row in kept.epochs] == [(1, "train", 0.5), (1, "val", 0.5)]
    assert [(one.roles, one.part) for one in kept.weights] == [(("best", "last"), None)]
    with zipfile.ZipFile(tmp_path / f"{job.id}.zip") as whole:
        assert b"secret" not in whole.read("manifest.json")
    assert orch("bundle", job.id, "-o", str(tmp_path)).code == 2
    with Client(settings.home) as client:
        assert bundle.read(client.bundle(job, tmp_path / "more.zip")).job == job.id
    told = json.loads(orch("bundle", job.id, "-o", str(tmp_path), "--force", "--with-weights", "--json").out)
    assert told["weights"][0]["included"] is True


def test_weights_are_told_apart_from_all_else_in_a_checkpoint(tmp_path: Path) -> None:
    def digest(**tensors: bytes) -> str:
        file = tmp_path / "some.safetensors"
        file.write_bytes(safetensors(**tensors))
        return weightfile.digest(file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())

    first = digest(**{"model.a": b"1", "model.b": b"22", "optimizer.a": b"x"})
    assert digest(**{"optimizer.a": b"yy", "model.b": b"22", "model.a": b"1"}) == first
    assert digest(**{"ema.a": b"1", "ema.b": b"22", "model.a": b"3", "model.b": b"44"}) == first
    assert digest(**{"model.a": b"1", "model.b": b"23"}) != first
    assert digest(**{"model.a": b"12", "model.b": b"2"}) != first


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, (9).to_bytes(8, "little") + b"[1, 2, 3]", safetensors(other=b"x")]
)
def test_what_is_no_checkpoint_has_no_weights(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    file.write_bytes(content)
    with pytest.raises(errors.OrchError, match="cannot be used"):
        weightfile.digest(file, sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def kept(orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path) -> Path:
    """The bundle of a job that has reached 0.5."""
    job = trained(store, settings)
    path = tmp_path / "kept.zip"
    assert orch("bundle", job.id, "-o", str(path)).code == 0
    return path


#: What the job came to the second time, the words of the command, its code and the verdict.
VERDICTS: list[tuple[dict[str, Any], list[str], int, str]] = [
    ({}, [], 0, "identical"),
    ({"weights": b"two"}, [], 0, "within-noise"),
    ({"weights": b"two", "accuracy": 0.54}, [], 0, "within-noise"),  # of 1,000 pictures: 0.0447
    ({"weights": b"two", "accuracy": 0.55}, [], 1, "different"),
    ({"weights": b"two", "accuracy": 0.55}, ["--tolerance", "0.1"], 0, "within-noise"),
    ({"weights": b"two", "accuracy": 0.54}, ["--tolerance", "0.01"], 1, "different"),
    ({"data_hash": "e" * 64}, [], 1, "not-run"),
]


@pytest.mark.parametrize("number", range(len(VERDICTS)))
def test_verdicts(kept: Path, orch: Orch, store: sql.SqlStore, settings: config.Settings, number: int) -> None:
    again, words, code, outcome = VERDICTS[number]
    job = trained(store, settings, **again)
    ran = orch("reproduce", str(kept), "--verdict", job.id, *words)
    assert (ran.code, ran.rows[0]) == (code, ["verdict", outcome])
    told = json.loads(orch("reproduce", str(kept), "--verdict", job.id, *words, "--json").out)
    assert (told["outcome"], told["job"], told["differences"]) == (outcome, job.id, [])


def test_machine_code_that_may_round_otherwise_is_a_difference(
    kept: Path, orch: Orch, store: sql.SqlStore, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ENVIRONMENT", replace(parts.ENVIRONMENT, compiled=True, code="0123456789ab"))
    job = trained(store, settings, weights=b"two")
    told = json.loads(orch("reproduce", str(kept), "--verdict", job.id, "--json").out)
    assert told["differences"] == ["compiled: False, True", "code: none, 0123456789ab"]


def test_a_job_that_ended_otherwise_has_its_own_code(kept: Path, orch: Orch, store: sql.SqlStore) -> None:
    spec = specs.parse({"data": "digits", "epochs": 1})
    failed, cancelled = parts.submit(store, spec=spec), parts.submit(store, spec=spec)
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD), parts.failed(states.Reason.BAD_INPUT))
    store.cancel(cancelled.id, actor="ada")
    for job_id, code in ((failed.id, 5), (cancelled.id, 6)):
        ran = orch("reproduce", str(kept), "--verdict", job_id)
        assert (ran.code, ran.rows[0]) == (code, ["verdict", "not-run"])


def test_what_cannot_be_judged_is_refused(kept: Path, orch: Orch, store: sql.SqlStore) -> None:
    waiting = parts.submit(store, spec=specs.parse({"data": "digits", "epochs": 1}))
    other = parts.submit(store, spec=specs.parse({"data": "digits", "epochs": 1, "lr": 0.5}))
    assert orch("reproduce", str(kept), "--verdict", waiting.id).code == 1
    ran = orch("reproduce", str(kept), "--verdict", other.id)
    assert (ran.code, "lr: 0.0001, 0.5 here" in ran.err or "lr: None, 0.5 here" in ran.err) == (2, True)
    assert orch("reproduce", str(kept), "--verdict", "nobody").code == 3
    assert orch("reproduce", str(kept), "--verdict", waiting.id, "--detach").code == 2


def test_it_is_submitted_as_it_was_and_differences_are_said(
    kept: Path, orch: Orch, store: sql.SqlStore, settings: config.Settings
) -> None:
    heard_of(settings, versions=parts.ENVIRONMENT.versions | {"torch": "9.9"}, devices=("A100",))
    ran = orch("reproduce", str(kept), "--detach")
    assert ran.code == 0
    assert "torch: 2.14.1, 9.9 (worker-a)" in ran.err
    assert "device: cpu, A100" in ran.err
    job = store.get(ran.out.strip())
    first = bundle.read(kept)
    assert (job.spec.kept(), job.state) == (bundle.spec(first).kept(), "queued")
    assert job.tags == ("reproduction", f"of-{first.job}")
    assert orch("reproduce", str(kept), "--timeout", "0").code == 7
    done = ended(store, settings, job.id, weights=b"one", accuracy=0.5, data_hash=DATA)
    assert orch("reproduce", str(kept), "--verdict", done.id).rows[0] == ["verdict", "identical"]


def test_a_job_whose_id_cannot_be_printed_is_named_all_the_same(
    kept: Path, store: sql.SqlStore, settings: config.Settings
) -> None:
    line = f"{shlex.join([*ORCH, 'reproduce', str(kept), '--detach'])} >/dev/full"
    env = config.child_environment(settings)
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, f"Job {store.find('@latest').id} is stored all the same." in done.stderr) == (1, True)


def test_a_database_that_goes_away_meanwhile_is_waited_for(
    kept: Path, orch: Orch, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = iter([errors.DatabaseUnavailable, KeyboardInterrupt])

    def look(*_: object) -> jobs.Job:
        raise next(troubles)

    monkeypatch.setattr(sql.SqlStore, "get", look)
    monkeypatch.setattr(follow, "AWAY_INTERVAL", 0.01)
    ran = orch("reproduce", str(kept))
    assert (ran.code, "The database is out of reach: it is waited for." in ran.err) == (130, True)


def test_a_secret_that_is_not_in_the_bundle_has_to_be_given(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path
) -> None:
    url = "https://example.org/pets.zip?token=secret"
    job = trained(store, settings, spec=specs.parse({"data": url, "epochs": 1}))
    file = str(tmp_path / f"{job.id}.zip")
    assert "not in it: `orch reproduce` takes it with --data" in orch("bundle", job.id, "-o", file).err
    ran = orch("reproduce", file, "--detach")
    assert (ran.code, "a URL with a secret" in ran.err, len(store.jobs(jobs.JobFilter()))) == (2, True, 1)
    ran = orch("reproduce", file, "--detach", "--data", url)
    assert (ran.code, store.get(ran.out.strip()).spec.data) == (0, url)


def test_other_data_is_cancelled_before_it_is_trained_on(
    kept: Path, orch: Orch, store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        for held in filter(None, [parts.claim(store, states.Stage.DOWNLOAD)]):
            store.record_dataset(held, of_content("e" * 64))
            store.finish(held, parts.DONE)

    monkeypatch.setattr("orchestrator.service.follow._pause", download)
    # The exit code is that of a fact, however it is worded.
    monkeypatch.setattr("orchestrator.service.reproduce._not_run", lambda *_: "Other pictures lie here.")
    ran = orch("reproduce", str(kept))
    assert (ran.code, ran.rows[0]) == (1, ["verdict", "not-run"])
    assert "did not train on the data" in ran.err
    assert store.find("@latest").state == "cancelled"


def test_weights_that_it_began_with_go_along(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path
) -> None:
    start, content = tmp_path / "start.safetensors", safetensors(a=b"x")
    start.write_bytes(content)
    spec = specs.parse({"data": "digits", "epochs": 1, "weights": str(start)})
    job = trained(store, settings, spec=spec)
    for name, words in (("without", []), ("with", ["--with-weights"])):
        assert orch("bundle", job.id, "-o", str(tmp_path / f"{name}.zip"), *words).code == 0
    start.unlink()
    ran = orch("reproduce", str(tmp_path / "without.zip"), "--detach")
    assert (ran.code, "began with are not here" in ran.err) == (3, True)
    ran = orch("reproduce", str(tmp_path / "with.zip"), "--detach")
    assert ran.code == 0
    again = store.get(ran.out.strip()).spec
    sha256 = hashlib.sha256(content).hexdigest()
    assert (again.weights_sha256, again.weights) == (sha256, str(settings.home / "bundles" / f"{sha256}.safetensors"))
    assert Path(again.weights or "").read_bytes() == content


def test_a_parent_s_weights_must_be_here(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path
) -> None:
    parent = trained(store, settings)
    spec = specs.parse({"data": "digits", "epochs": 1, "weights": f"job:{parent.id}"})
    job = trained(store, settings, spec=spec, parent=parent.id, start_step=10)
    assert orch("bundle", job.id, "-o", str(tmp_path / "kept.zip")).code == 0
    assert orch("reproduce", str(tmp_path / "kept.zip"), "--detach").code == 0
    store.cancel(store.find("@latest").id, actor="ada")
    store.delete(store.find("@latest").id, actor="ada")
    store.delete(job.id, actor="ada")
    store.delete(parent.id, actor="ada")
    ran = orch("reproduce", str(tmp_path / "kept.zip"), "--detach")
    assert (ran.code, f"weights of job {parent.id}, step 10" in ran.err) == (3, True)


def test_a_job_without_a_result_has_no_bundle(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, tmp_path: Path
) -> None:
    held = parts.training(store)
    assert orch("bundle", held.id, "-o", str(tmp_path)).code == 1
    store.finish(held, parts.failed(states.Reason.BAD_INPUT))
    job = trained(store, settings)
    (settings.artifact_dir / store.checkpoints(job.id)[0].path).unlink()
    ran = orch("bundle", job.id, "-o", str(tmp_path))
    assert (ran.code, "is not on this host" in ran.err, list(tmp_path.glob("*.zip"))) == (3, True, [])
    assert list(tmp_path.glob(".*.part")) == []


class Said(archive.Head):
    """A manifest that says anything."""

    model_config = pydantic.ConfigDict(extra="allow")


EVIL_PART = {"name": "../evil", "bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], int, str]] = {
    "spec": (lambda said: said["spec"].update(lr=-1), 2, "lr"),
    "field": (lambda said: said["spec"].update(evil=1), 2, "evil"),
    "data": (lambda said: said["spec"].update(data="http://["), 2, "no URL"),
    "format": (lambda said: said.update(format=2), 1, "is of format 2"),
    "extra": (lambda said: said.update(evil=1), 1, "evil"),
    "weights": (lambda said: said.update(weights=7), 1, "weights"),
    "accuracy": (lambda said: said["evaluation"].update(accuracy="high"), 1, "accuracy"),
    "part": (
        lambda said: said.update(start={"named": "/x", "step": None, "sha256": None, "part": EVIL_PART}),
        1,
        "is no part of a bundle",
    ),
    "missing": (
        lambda said: said.update(
            start={"named": "/x", "step": None, "sha256": None, "part": EVIL_PART | {"name": "start"}}
        ),
        1,
        "is missing",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_bundle_queues_nothing(kept: Path, orch: Orch, store: sql.SqlStore, tmp_path: Path, name: str) -> None:
    change, code, why = FORGED[name]
    with zipfile.ZipFile(kept) as whole:
        said = json.loads(whole.read("manifest.json"))
    change(said)
    with archive.writing(tmp_path / "forged.zip", kind=bundle.KIND, force=False) as writer:
        if name == "part":
            writer.add("../evil", [b"evil"])
        writer.end(Said.model_validate(said))
    before = len(store.jobs(jobs.JobFilter()))
    ran = orch("reproduce", str(tmp_path / "forged.zip"), "--detach")
    assert ran.code == code
    assert why in ran.err
    assert "defect" not in ran.err
    assert len(store.jobs(jobs.JobFilter())) == before
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("what", ["cut", "text", "backup", "gone"])
def test_what_is_no_bundle_is_refused(kept: Path, orch: Orch, tmp_path: Path, what: str) -> None:
    file = tmp_path / "bad.zip"
    if what == "cut":
        file.write_bytes(kept.read_bytes()[:-30])
    elif what == "text":
        file.write_text("orch bundle")
    elif what == "backup":
        assert orch("backup", "--without-artifacts", str(file)).code == 0
    ran = orch("reproduce", str(file))
    assert ran.code == (3 if what == "gone" else 1)
    assert "error:" in ran.err
    assert "defect" not in ran.err
