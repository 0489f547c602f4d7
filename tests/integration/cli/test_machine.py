"""The commands about this machine: settings, database, doctor, and a whole installation brought up and down."""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.cli import watch
from orchestrator.core import jobs
from orchestrator.service import asking, careviews, node, trained
from orchestrator.store import base
from tests.contract import parts
from tests.integration.cli.conftest import Orch, OrchIn
from tests.support import asked, pictures, running


def test_settings_are_shown_with_origin_and_without_secrets(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_BROKER_URL", "redis://:canary@broker:6379/0")
    monkeypatch.setenv("ORCH_USER_LIMITS", "*=2, ada=4")
    ran = orch("config", "show")
    assert ["user_limits", "*=2,ada=4", "ORCH_USER_LIMITS"] in ran.rows
    assert ["broker_url", "redis://:***@broker:6379/0", "ORCH_BROKER_URL"] in ran.rows
    assert ["lease", "30.0", "default"] in ran.rows
    shown = orch("config", "show", "--json")
    assert "canary" not in ran.out + shown.out
    named = {setting.name: setting for setting in careviews.SettingsPayload.model_validate_json(shown.out).settings}
    assert set(named) == set(config.Settings.model_fields)
    assert named["home"].variable == "ORCH_HOME"


def test_paths_are_one_a_line(orch: Orch, settings: config.Settings) -> None:
    rows = orch("config", "paths").rows
    assert ["artifacts", str(settings.artifact_dir)] in rows
    assert ["database", str(settings.home / "orch.db")] in rows


def test_the_database_is_made_and_checked(orch: Orch) -> None:
    assert orch("db", "check").code == 4
    found, wanted = orch("db", "current").rows[0]
    assert found == ""
    assert orch("db", "upgrade").rows == [["", wanted]]
    assert orch("db", "upgrade").rows == [[wanted, wanted]]
    assert orch("db", "check").code == 0
    assert json.loads(orch("db", "current", "--json").out)["found"] == wanted


def test_the_systemd_unit_holds_settings_but_no_secrets(
    orch: Orch, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_BROKER_URL", "redis://:canary@broker/0")
    unit = orch("up", "--systemd").out
    assert f'Environment="ORCH_HOME={settings.home}"' in unit
    assert "ORCH_BROKER_URL is set and secret" in unit
    assert "canary" not in unit
    assert "-m worker --only-one" in unit
    assert "TimeoutStopSec=90\n" in unit  # a node that must end its slots gives their jobs back before


def test_the_systemd_unit_says_what_systemd_reads_as_the_settings(
    orch: Orch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "50 % python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("ORCH_WORKER_NAME", 'ada\'s "100 %" \\o/ $HOME')
    unit = orch("up", "--systemd").out.splitlines()
    assert 'Environment="ORCH_WORKER_NAME=ada\'s \\"100 %%\\" \\\\o/ $HOME"' in unit
    assert f'ExecStart="{tmp_path}/50 %% python" -P -m worker --only-one' in unit


@pytest.mark.parametrize(
    "words",
    [
        ("worker",),
        ("up", "-d"),
        ("predict", "@latest", "picture.png"),
        ("export", "@latest"),
        ("evaluate", "@latest"),
        ("demo",),
    ],
)
def test_without_torch_the_extra_is_named(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    held = parts.training(store)
    store.record_dataset(held, jobs.Dataset(hash="d", source="s", classes=("a", "b"), counts={}, bytes=1, path="/d"))
    store.record_checkpoint(held, parts.checkpoint(held, 3, accuracy=0.5, epoch=1))
    Path("picture.png").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    ran = orch(*words)
    assert ran.code == 1
    assert "pip install 'orch[worker]'" in ran.err


def test_evaluate_wants_the_job_s_own_data_as_it_was(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = parts.training(store)
    store.record_dataset(held, jobs.Dataset(hash="d", source="s", classes=("a", "b"), counts={}, bytes=1, path="/d"))
    hashes: list[object] = []

    def ask(*given: Any) -> Iterator[asking.Answer]:
        hashes.append(given[-1]["data_hash"])
        yield from ()

    monkeypatch.setattr(trained, "ask", ask)
    orch("evaluate", "@latest")
    orch("evaluate", "@latest", "--data", str(tmp_path))
    assert hashes == ["d", None]


def test_export_refuses_before_it_begins(
    orch: Orch, store: base.Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = parts.submit(store)
    (tmp_path / "there.md").touch()
    monkeypatch.chdir(tmp_path)
    assert "no checkpoint yet" in orch("export", job.id).err
    for output, said in (
        ("a.pt", "does not end in .safetensors"),
        ("no/a.safetensors", "no folder"),
        ("there.safetensors", "exists"),
        (f"{'x' * 300}.safetensors", "cannot be written"),
    ):
        refused = orch("export", job.id, "-o", output)
        assert (refused.code, said in refused.err) == (2, True), refused.err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'orch[worker,onnx]'" in orch("export", job.id, "--format", "onnx").err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["there.md"]


def test_predict_needs_pictures_and_a_checkpoint(orch: Orch, store: base.Store, tmp_path: Path) -> None:
    parts.submit(store)
    (tmp_path / "empty").mkdir()
    for words in (str(tmp_path / "gone.png"), str(tmp_path / "empty"), __file__):
        assert orch("predict", "@latest", words).code == 3
    assert "no picture b?.png" in orch("predict", "@latest", "-", stdin=b"\nb\xff.png\n").err
    assert orch("predict", "@latest", "-").code == 3
    assert "no checkpoint yet" in orch("predict", "@latest", __file__).err


def test_the_demo_does_not_touch_other_servers(orch: Orch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCH_DATABASE_URL", "postgresql://ada:canary@127.0.0.1:1/orch")
    ran = orch("demo", "--folder", str(tmp_path / "demo"))
    assert ran.code == 2
    assert not (tmp_path / "demo").exists()


def test_ctrl_c_at_the_demo_stops_what_it_has_started_and_names_its_home(
    orch: Orch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stopped: list[config.Settings] = []
    monkeypatch.setattr(node, "start", lambda *_: node.Started(pid=1, log=tmp_path, was_running=False))
    monkeypatch.setattr(node, "stop", stopped.append)
    monkeypatch.setattr(watch, "until_ended", interrupt)
    ran = orch("demo", "--folder", str(tmp_path / "a demo"))
    assert (ran.code, [settings.home for settings in stopped]) == (130, [tmp_path / "a demo"])
    assert f"orch --home '{tmp_path}/a demo' down" in ran.err
    assert "goes on" not in ran.err


def test_down_without_a_node_is_no_error(orch: Orch) -> None:
    ran = orch("down")
    assert ran.code == 0
    assert "No worker was running" in ran.err


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[running.Installation]:
    with running.installation(tmp_path / "home", migrated=False, devices="cpu") as installation:
        yield installation


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_two_who_start_a_node_at_once_to_prediction_and_down(
    installed: running.Installation, orch_in: OrchIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orch = orch_in(installed)
    data = pictures.write(tmp_path / "data", pictures.members(size=(16, 16)))
    try:
        with futures.ThreadPoolExecutor() as both:
            started = both.map(lambda _: installed.orch("up", "-d", timeout=200), range(2))
            said = [one.stderr.partition(": node")[0] for one in started]
        assert sorted(said) == ["Already up", "Up"]
        assert "Already up" in orch("up", "-d").err
        assert "worker\t" in orch("status").out
        recipe = ["--network", "densenet_tiny", "--image-size", "8", "--epochs", "1", "--loader-workers", "0"]
        job = orch("submit", "-q", "--data", str(data), *recipe, "--wait").out.split()[0]
        assert "evaluation\t" in orch("status", job).out
        asked.here(monkeypatch)  # processes of their own are asked in the walk through the failpoints
        _check_prediction(orch, job, data / "validation", broken=tmp_path / "broken.png")
        evaluation = json.loads(orch("status", job, "--json").out)["evaluation"]
        measured = json.loads(orch("evaluate", job, "--data", str(data), "--json").out)["evaluation"]
        assert measured | {"seconds": 0} == evaluation | {"seconds": 0}
        _check_export(orch, job, tmp_path, evaluation)
    finally:
        gone = orch("down").err
    assert "has drained" in gone
    assert node.pid(installed.settings) is None


def _check_prediction(orch: Orch, job: str, pictures_of_two: Path, *, broken: Path) -> None:
    broken.write_bytes(b"no picture")
    predicted = orch("predict", job, str(pictures_of_two), str(broken), "--top", "2", code=1)
    assert "is not a picture" in predicted.err
    assert len(predicted.rows) == 2 * 6
    image, label, probability = predicted.rows[0]
    assert Path(image).is_file()
    assert label in {"cats", "dogs"}
    assert 0.5 <= float(probability) <= 1


def _check_export(orch: Orch, job: str, folder: Path, evaluation: dict[str, Any]) -> None:
    made = orch("export", job, "-o", str(folder))
    assert "6 validation pictures: logits differ by 0 at most" in made.err
    assert {path.name for path in folder.glob(f"{job}*")} == {f"{job}{end}" for end in (".safetensors", ".json", ".md")}
    card = (folder / f"{job}.md").read_text()
    assert f"Accuracy {evaluation['accuracy']:.4f}" in card
    assert f"checkpoint | of job {job}, sha256 {evaluation['checkpoint_sha256']}" in card
    assert f"sha256 {hashlib.sha256(Path(made.out.strip()).read_bytes()).hexdigest()}" in made.err
