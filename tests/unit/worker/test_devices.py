import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import structlog.testing

from orchestrator import config, environ, errors
from worker import devices


def _gpu(index: int, *, free: float = 1.0) -> devices.Gpu:
    return devices.Gpu(index=index, uuid=f"GPU-{index}a", name="A GPU", memory=1000, free=int(1000 * free))


GPUS = [_gpu(0), _gpu(1), _gpu(2)]


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", lambda: GPUS)


def _settings(tmp_path: Path, wanted: str, slots: int = 1) -> config.Settings:
    return config.Settings(home=tmp_path, lock_dir=tmp_path / "locks", devices=wanted, slots_per_device=slots)


@pytest.mark.parametrize(
    ("setting", "indices"),
    [
        (None, [0, 1, 2]),  # not set: all
        ("", []),  # set to nothing: none
        ("2,0", [2, 0]),  # its order counts
        ("GPU-1a", [1]),
        ("GPU-1", [1]),  # a prefix that is unique
        ("0,7,1", [0]),  # everything from the first unknown on is hidden
        ("-1", []),
        (" 1 , 2 ", [1, 2]),
    ],
)
def test_cuda_visible_devices_is_obeyed(setting: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in devices.visible(GPUS, setting)] == indices


@pytest.mark.parametrize(("setting", "said"), [("MIG-7d", ["MIG-7d"]), ("0,7", ["7"]), ("-1", []), ("", []), ("0", [])])
def test_what_is_no_gpu_of_the_host_is_told(setting: str, said: list[str]) -> None:
    with structlog.testing.capture_logs() as logs:
        devices.visible(GPUS, setting)
    assert [line["named"] for line in logs] == said


def test_without_gpus_auto_is_one_cpu_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", list)
    assert [(device.slot, device.gpu) for device in devices.claim(_settings(tmp_path, "auto"))] == [("cpu.0", None)]


@pytest.mark.usefixtures("three_gpus")
def test_auto_claims_every_gpu_and_slots_multiply(tmp_path: Path) -> None:
    claimed = devices.claim(_settings(tmp_path, "auto", slots=2))
    assert [device.slot for device in claimed] == ["gpu0.0", "gpu0.1", "gpu1.0", "gpu1.1", "gpu2.0", "gpu2.1"]


@pytest.mark.usefixtures("three_gpus")
def test_one_claims_a_gpu_that_nobody_holds(tmp_path: Path) -> None:
    claims = [devices.claim(_settings(tmp_path, "one")) for _ in range(3)]
    assert [[device.offered.id for device in claim] for claim in claims] == [["GPU-0a"], ["GPU-1a"], ["GPU-2a"]]
    with pytest.raises(errors.InvalidSetting) as refused:
        devices.claim(_settings(tmp_path, "one"))
    assert "No GPU is free" in refused.value.message


@pytest.mark.usefixtures("three_gpus")
def test_gpus_can_be_named_by_number(tmp_path: Path) -> None:
    assert [device.offered.id for device in devices.claim(_settings(tmp_path, "2,0"))] == ["GPU-2a", "GPU-0a"]


def test_a_gpu_that_other_users_fill_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", lambda: [_gpu(0, free=0.2), _gpu(1)])
    assert [device.offered.id for device in devices.claim(_settings(tmp_path, "auto"))] == ["GPU-1a"]


def test_asking_for_a_gpu_where_there_is_none_names_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_gpus", list)
    with pytest.raises(errors.InvalidSetting) as refused:
        devices.claim(_settings(tmp_path, "one"))
    assert refused.value.why == "The driver shows no GPU."
    assert "worker-cpu" in (refused.value.hint or "")


@pytest.mark.usefixtures("three_gpus")
def test_words_that_are_no_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidSetting, match="cannot be used"):
        devices.claim(_settings(tmp_path, "gpu7"))


def test_none_is_a_worker_that_only_downloads(tmp_path: Path) -> None:
    assert devices.claim(_settings(tmp_path, "none")) == []


def test_a_gpu_that_does_not_answer_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return index

    answers: dict[str, Callable[..., object]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=1000, free=900),
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}a",
        "nvmlDeviceGetName": lambda _: "A GPU",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(environ, "visible_gpus", lambda: None)
    assert [(gpu.index, gpu.uuid, gpu.free) for gpu in devices.list_gpus()] == [(1, "GPU-1a", 900)]


@pytest.mark.usefixtures("three_gpus")
def test_every_user_of_the_host_can_see_who_holds_a_gpu(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert devices.claim(_settings(tmp_path, "0"))
    finally:
        os.umask(before)
    folder = tmp_path / "locks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "GPU-0a.0").stat().st_mode) == 0o444


#: Claims one of two GPUs that are made up, says which, and holds it.
HOLD = """
import sys
from pathlib import Path
from orchestrator import config, environ, errors
from worker import devices

home, locks = map(Path, sys.argv[1:])
gpus = [devices.Gpu(index=index, uuid=f"GPU-{index}a", name="A GPU", memory=10, free=10) for index in range(2)]
devices.list_gpus = lambda: gpus
try:
    (claimed,) = devices.claim(config.Settings(home=home, lock_dir=locks, devices="one"))
    print(claimed.gpu.uuid, flush=True)
except errors.InvalidSetting as error:
    print(error.message, flush=True)
sys.stdin.read()
"""


def test_installations_of_one_host_share_its_gpus_by_their_folder_of_locks(tmp_path: Path) -> None:
    with ExitStack() as stack:

        def claim(home: str) -> tuple["subprocess.Popen[str]", str]:
            words = [sys.executable, "-c", HOLD, str(tmp_path / home), str(tmp_path / "locks")]
            node = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(node)
            stack.callback(node.kill)
            assert node.stdout is not None
            return node, node.stdout.readline().strip()

        (first, one), (_, other) = claim("first"), claim("second")
        assert {one, other} == {"GPU-0a", "GPU-1a"}
        assert claim("first")[1] == claim("third")[1] == "No GPU is free for this worker."
        first.kill()
        first.wait()
        assert claim("third")[1] == one
