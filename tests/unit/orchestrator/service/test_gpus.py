"""Drivers and GPUs that torch cannot use: no GPU is needed to find out what would be said of one."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from orchestrator import config, errors
from orchestrator.service import asking, checks, gpus

Level = checks.Level

Examined = Callable[[dict[str, Any]], list[checks.Check]]

CUDA_13 = {"version": "2.14.1", "cuda": "13.0", "codes": ["sm_75", "sm_80", "sm_90a", "compute_120"]}
CPU: dict[str, Any] = {"version": "2.14.1", "cuda": None, "codes": []}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with one GPU, to be changed."""
    shown = SimpleNamespace(version="580.65", cuda=13000, capabilities=[(9, 0)])

    def capability(index: int) -> tuple[int, int]:
        if shown.capabilities[index] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return shown.capabilities[index]  # type: ignore[no-any-return] # whatever a test puts there

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: shown.version,
        "nvmlSystemGetCudaDriverVersion_v2": lambda: shown.cuda,
        "nvmlDeviceGetCount": lambda: len(shown.capabilities),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda index: f"GPU {index}",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=2**34),
        "nvmlDeviceGetCudaComputeCapability": capability,
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    return shown


@pytest.fixture
def examined(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> Examined:
    """Examine with such a torch."""

    def examine(build: dict[str, Any]) -> list[checks.Check]:
        monkeypatch.setattr(asking, "ask", lambda *_: iter([build]))
        return list(gpus.examine(settings))

    return examine


@pytest.mark.parametrize(
    ("shown", "build", "told", "fix"),
    [
        (("580.65", 13000, (9, 0)), CUDA_13, None, None),  # the code for it
        (("580.65", 13000, (8, 6)), CUDA_13, None, None),  # code of its major number, and older
        (("595.10", 13040, (9, 0)), CUDA_13, None, None),  # a newer driver serves older builds
        (("650.10", 14000, (9, 0)), CUDA_13, None, None),  # of older majors too
        (("580.65", 13000, (12, 1)), CUDA_13, None, None),  # translated by the driver
        (("580.65", 13000, (7, 0)), CUDA_13, "no code for it, only sm_75", "`orch worker --devices 0`"),
        (("580.65", 13000, (10, 0)), CUDA_13, "no code for it", "pytorch.org"),  # code of another major, and no older
        (("570.12", 12080, (9, 0)), CUDA_13, "needs CUDA 13, this driver serves 12.8", "to 580 or newer"),
        (("570.12", 12080, (9, 0)), CUDA_13, "needs CUDA 13", "a torch for CUDA 12"),
        (("580.65", 13000, (9, 0)), CPU, "built for CPUs", "a build for CUDA"),
    ],
)
def test_what_torch_cannot_use_is_found(
    *,
    shown: tuple[str, int, tuple[int, int]],
    build: dict[str, Any],
    told: str | None,
    fix: str | None,
    driver: SimpleNamespace,
    examined: Examined,
) -> None:
    version, cuda, capability = shown
    vars(driver).update(version=version, cuda=cuda, capabilities=[capability])
    (check,) = examined(build)
    assert check.found.startswith(f"GPU 0, 16.0 GiB, capability {capability[0]}.{capability[1]}, driver {version}")
    assert check.level is (Level.FAIL if told else Level.OK)
    assert (told or "") in check.found
    assert (fix or "") in (check.fix or "")


def test_a_gpu_that_is_lost_hides_no_other(driver: SimpleNamespace, examined: Examined) -> None:
    driver.capabilities = [None, (9, 0)]
    lost, well = examined(CUDA_13)
    assert (lost.level, well.level) == (Level.FAIL, Level.OK)
    assert "GPU 0 cannot be used: GPU is lost" in lost.found
    assert "nvidia-smi" in str(lost.fix)


@pytest.mark.parametrize(
    ("code", "level", "told"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, Level.OK, "runs on the CPU"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, Level.OK, "runs on the CPU"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, Level.FAIL, "version mismatch"),  # updated, and not yet in use
    ],
)
def test_no_driver_is_no_fault_and_a_broken_one_is(
    code: int, level: checks.Level, told: str, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", broken)
    (check,) = gpus.examine(settings)
    assert check.level is level
    assert told in check.found


@pytest.mark.usefixtures("driver")
def test_a_torch_that_cannot_be_asked_fails_and_the_gpu_is_still_told_of(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> Iterator[asking.Answer]:
        raise errors.OrchError("The process that was asked failed.", why="ImportError: libcudart.so.13")

    monkeypatch.setattr(asking, "ask", ask)
    torch, gpu = gpus.examine(settings)
    assert (torch.name, torch.level, gpu.name, gpu.level) == ("torch", Level.FAIL, "gpu", Level.OK)
    assert "libcudart" in torch.found


@pytest.mark.usefixtures("driver")
def test_the_torch_that_is_installed_says_what_it_was_built_for(settings: config.Settings) -> None:
    (check,) = gpus.examine(settings)
    assert "built for CPUs" in check.found or check.level is Level.OK, check
