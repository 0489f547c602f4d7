"""What a recipe costs, and when that is worth a word."""

from datetime import UTC, datetime
from pathlib import Path

from orchestrator.core import jobs, specs, states
from orchestrator.service import advice


def worker(*devices: str) -> jobs.Worker:
    identity = jobs.WorkerIdentity(id="w", host="h", boot_id="b", pid_namespace="n", pid=1, pid_started=0)
    now = datetime.now(UTC)
    return jobs.Worker(
        identity=identity,
        state=states.WorkerState.ACTIVE,
        devices=devices,
        versions={},
        artifact_root=None,
        started_at=now,
        beat=0,
        beat_at=now,
    )


def test_the_notebooks_job_is_warned_about_with_smaller_pictures_to_paste() -> None:
    said = advice.for_cpu(specs.JobSpec())
    assert said is not None
    assert "43.5 GMAC" in said.warning
    assert said.changes == {"image_size": 64, "batch_size": 16}
    assert advice.for_cpu(specs.parse(said.changes)) is None


def test_a_network_that_stays_too_large_gets_no_command() -> None:
    said = advice.for_cpu(specs.parse({"growth_rate": 128, "blocks": [24, 24, 24, 24], "image_size": 64}))
    assert said is not None
    assert said.changes == {}


def test_the_workers_decide_where_there_are_some(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    driver.touch()
    assert advice.on_cpu([worker("cpu")], nvidia=driver)
    assert not advice.on_cpu([worker("cpu"), worker("GPU-1")], nvidia=tmp_path / "none")


def test_without_workers_this_host_decides(tmp_path: Path) -> None:
    assert advice.on_cpu([], nvidia=tmp_path / "nvidiactl")
    (tmp_path / "nvidiactl").touch()
    assert not advice.on_cpu([], nvidia=tmp_path / "nvidiactl")
