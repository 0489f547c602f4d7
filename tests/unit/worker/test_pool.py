"""How slots share out the devices of a node: by locks, several at once or none."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest

from orchestrator.core import resources
from worker import devices, pool

ONE, TWO, THREE = (resources.Demand(gpus=count) for count in (1, 2, 3))


def gpu(index: int, *, slots: int = 1, name: str = "A100") -> list[devices.Device]:
    found = devices.Gpu(index=index, uuid=f"GPU-{index}", name=name, memory=1000, free=1000)
    return [
        devices.Device(slot=f"gpu{index}.{number}", label=name, gpu=found, locks=(900 + index,))
        for number in range(slots)
    ]


CPUS = [devices.Device(slot=f"cpu.{number}", label="CPU", gpu=None, locks=()) for number in range(3)]


def descriptors(folder: Path) -> int:
    """Return how many of this process's descriptors are of files in a folder."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this look, which is over
            found += path.readlink().is_relative_to(folder)
    return found


def pools(folder: Path, those: list[devices.Device]) -> list[pool.Pool]:
    offer = resources.Offer(devices=tuple(device.offered for device in those))
    return [pool.Pool(those, slot=device.slot, offer=offer, prefix=folder / "node") for device in those]


def test_a_gang_takes_its_own_device_and_others_until_it_ends(tmp_path: Path) -> None:
    first, second, third = pools(tmp_path, CPUS)
    with first.in_use():
        assert len(first.hold(TWO)) == 2
        assert (first.ids, len(first.locks)) == (("cpu", "cpu"), 2)
        with second.in_use():
            assert second.hold(ONE) == ()  # its device is the gang's
            assert not second.has_come_free()
        with third.in_use():
            assert len(third.hold(ONE)) == 1
            assert third.hold(TWO) == ()
    assert second.has_come_free()
    with second.in_use():
        assert len(second.hold(ONE)) == 1


def test_who_cannot_have_all_holds_none_but_its_own(tmp_path: Path) -> None:
    first, second, third = pools(tmp_path, CPUS)
    with third.in_use(), first.in_use():
        assert third.hold(ONE)
        assert first.hold(THREE) == ()
        with second.in_use():
            assert second.hold(ONE)  # the first one does not keep it while it waits for the third
        assert len(first.hold(TWO)) == 2
    assert first.ids == ()


def test_devices_of_a_gang_are_different_gpus_as_demanded(tmp_path: Path) -> None:
    mixed = pools(tmp_path, [*gpu(0, slots=2), *gpu(1, name="T4"), *gpu(2)])
    with mixed[0].in_use():
        assert [device.id for device in mixed[0].hold(resources.Demand(gpus=2, device="a100"))] == ["GPU-0", "GPU-2"]
        assert mixed[0].ids == ("GPU-0", "GPU-2")
        assert set(mixed[0].locks) > {900, 902}  # those that all users of the host share go along
        with mixed[1].in_use():
            assert mixed[1].hold(ONE)  # the other slot of the same GPU
        with mixed[2].in_use():
            assert mixed[2].hold(resources.Demand(device="a100")) == ()  # its own device is none
            assert mixed[2].hold(ONE)
    assert [slot.serves(resources.Demand(gpus=2, device="a100")) for slot in mixed] == [True, True, False, True]


def test_a_device_stays_locked_as_long_as_a_process_of_the_job_lives(tmp_path: Path) -> None:
    first, second, _ = pools(tmp_path, CPUS)
    with first.in_use():
        first.hold(TWO)
        inherited = [os.dup(lock) for lock in first.locks]  # as the fork server's child has them
    for slot in (first, second):
        with slot.in_use():
            assert slot.hold(ONE) == ()
    for lock in inherited:
        os.close(lock)
    with second.in_use():
        assert len(second.hold(TWO)) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_no_descriptor_is_left_open(tmp_path: Path, count: int) -> None:
    first, *_ = pools(tmp_path, CPUS)
    before = descriptors(tmp_path)
    for _ in range(3):
        with first.in_use():
            first.hold(resources.Demand(gpus=count))
            first.hold(resources.Demand(gpus=4))
        first.has_come_free()
    assert descriptors(tmp_path) == before


def test_a_look_that_fails_is_no_device_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = pools(tmp_path, CPUS)
    with second.in_use(), first.in_use():
        second.hold(TWO)
        assert first.hold(THREE) == ()
    before = descriptors(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(pool, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
        assert not first.has_come_free()
    assert descriptors(tmp_path) == before
    assert first.has_come_free()


def test_a_download_holds_nothing() -> None:
    with pool.UNPOOLED.in_use():
        assert pool.UNPOOLED.hold(ONE)
        assert (pool.UNPOOLED.ids, pool.UNPOOLED.locks) == (("cpu",), ())
    assert not pool.UNPOOLED.has_come_free()
    assert not pool.UNPOOLED.serves(ONE)
