import importlib
import os
import sys
from pathlib import Path

import pytest

from worker import protocol

#: Not `from … import __main__`: pytest's own goes by that name too.
command = importlib.import_module("worker.training.__main__")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))


def run(monkeypatch: pytest.MonkeyPatch, job: Path, out: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["worker.training", str(job), "--out", str(out)])
    return int(command.main())


def test_a_job_file_trains_without_queue_and_database(
    data: protocol.DatasetInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    job, out = tmp_path / "spec.toml", tmp_path / "out"
    job.write_text(f'data = "{data.path}"\nnetwork = "densenet_tiny"\nimage_size = 8\nepochs = 2\n', encoding="utf-8")
    assert run(monkeypatch, job, out) == 0
    lines = [line.split("Z  ")[1].split()[:3] for line in capfd.readouterr().out.splitlines()]
    assert [line for line in lines if line[0] == "epoch"] == [
        ["epoch", str(epoch), f"{split}:"] for epoch in (1, 2) for split in ("train", "val")
    ]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "step-0000003.safetensors",
        "step-0000006.safetensors",
    ]
    assert run(monkeypatch, job, out) == 2
    assert capfd.readouterr().err.splitlines() == [f"{out} is not empty.", "Name a new folder."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 2", "did you mean 'epochs'?"),
        ("epochs = ", "spec.toml cannot be read."),
        ('recipe = "digits"\ntags = ["x"]', "`orch submit` takes whole job files"),
        ('batch_size = "auto"', "`orch submit` takes whole job files"),
        ("data: digits", "`orch submit` takes whole job files"),
    ],
)
def test_a_faulty_job_file_is_a_usage_error(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "spec.toml"
    job.write_text(text, encoding="utf-8")
    assert run(monkeypatch, job, tmp_path / "out") == 2
    assert said in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_its_gpus_or_ranks_say_how_many_processes_train_it(tmp_path: Path) -> None:
    job = tmp_path / "spec.toml"
    job.write_text('data = "digits"\ngpus = 3\nbatch_size = 12\n', encoding="utf-8")
    told = command.assignment(job, tmp_path / "out")
    fewer = command.assignment(job, tmp_path / "out", gpus=2)
    assert [(one.spec.gpus, len(one.devices)) for one in (told, fewer)] == [(3, 3), (2, 2)]
    assert told.threads * 3 <= max(3, len(os.sched_getaffinity(0)))
