"""What a job demands against what a worker has: the rule as a table."""

import pytest

from orchestrator import errors
from orchestrator.core import resources, states

TRAIN, EVALUATE, DOWNLOAD = states.Stage.TRAIN, states.Stage.EVALUATE, states.Stage.DOWNLOAD


def gpu(number: int, name: str = "NVIDIA A100-SXM4-40GB", memory: int = 42 * 10**9) -> resources.Device:
    return resources.Device(id=f"GPU-{number}", kind="gpu", name=name, memory=memory)


def cpus(count: int) -> tuple[resources.Device, ...]:
    return tuple(resources.Device(id=f"cpu.{number}", kind="cpu", name="CPU") for number in range(count))


T4 = gpu(7, "Tesla T4", 16 * 10**9)
CPU = resources.Offer(devices=cpus(2), labels=("bigdisk", "lab=a"))
TWO = resources.Offer(devices=(gpu(0), gpu(1)))
SHARED = resources.Offer(devices=(gpu(0), gpu(0)))  # two slots of one GPU
MIXED = resources.Offer(devices=(gpu(0), T4))
NONE = resources.Offer()


def demand(gpus: int = 1, **given: object) -> resources.Demand:
    parsed = resources.parse(**given)  # type: ignore[arg-type]  # words of the table
    return resources.Demand(gpus=gpus, device=parsed.device, gpu_memory=parsed.gpu_memory, labels=parsed.labels)


@pytest.mark.parametrize(
    ("wanted", "offer", "why"),
    [
        (demand(), CPU, None),
        (demand(), TWO, None),
        (demand(), NONE, "has no device to train on"),
        (demand(device="cpu"), CPU, None),
        (demand(device="cpu"), TWO, "has no CPU slot: it has NVIDIA A100-SXM4-40GB"),
        (demand(device="gpu"), CPU, "has no GPU: it has CPU"),
        (demand(device="GPU"), TWO, None),
        (demand(device="A100"), TWO, None),  # a part of the name, in any case
        (demand(device="a100"), CPU, "has no GPU named a100: it has CPU"),
        (demand(device="h100"), MIXED, "has no GPU named h100: it has NVIDIA A100-SXM4-40GB, Tesla T4"),
        (demand(gpu_memory="40GB"), TWO, None),
        (demand(gpu_memory="1GB"), CPU, "has no GPU: it has CPU"),  # memory of a GPU asks for one
        (demand(gpu_memory="80GB"), MIXED, "has no GPU with 80 GB: the largest has 42 GB"),
        (demand(device="t4", gpu_memory="40GB"), MIXED, "has no GPU named t4 with 40 GB: the largest has 16 GB"),
        (demand(2), TWO, None),
        (demand(2), CPU, None),  # on a worker without GPUs its slots
        (demand(2), SHARED, "has 1 devices, and the job trains on 2 together"),  # one GPU is one, whatever its slots
        (demand(2, device="a100"), MIXED, "has 1 such devices, and the job trains on 2 together"),
        (demand(labels=["bigdisk", "lab=a"]), CPU, None),
        (demand(labels=["lab=b", "bigdisk", "fast"]), CPU, "lacks the label fast, lab=b"),
        (demand(device="gpu", labels=["fast"]), CPU, "lacks the label fast; has no GPU: it has CPU"),
    ],
)
def test_a_worker_meets_a_demand_or_says_what_it_lacks(
    wanted: resources.Demand, offer: resources.Offer, why: str | None
) -> None:
    assert ("; ".join(wanted.unmet(TRAIN, offer)) or None) == why


def test_evaluating_takes_one_device_of_the_kind_and_a_download_any_host() -> None:
    wanted = demand(2, device="a100")
    assert wanted.unmet(EVALUATE, MIXED) == ()
    assert wanted.unmet(EVALUATE, CPU) == ("has no GPU named a100: it has CPU",)
    assert wanted.unmet(DOWNLOAD, NONE) == ()


def test_a_demand_has_one_text() -> None:
    assert resources.ANY.text == demand().text == ""
    assert resources.of("") == resources.ANY
    wanted = demand(4, device=" A100 ", gpu_memory="40GB", labels=["b", "a", "b"])
    assert wanted.text == '{"device":"a100","gpu_memory":40000000000,"gpus":4,"labels":["a","b"]}'
    assert resources.of(wanted.text) == wanted
    assert wanted.said() == ("4 devices together", "device a100", "40 GB of GPU memory", "label a", "label b")


@pytest.mark.parametrize(
    ("text", "count"),
    [("10GB", 10**10), ("10 gb", 10**10), ("10g", 10**10), ("1.5GiB", 3 * 2**29), ("800MB", 8 * 10**8), (10**9, 10**9)],
)
def test_memory_is_a_number_with_its_unit(text: str | int, count: int) -> None:
    assert resources.parse(gpu_memory=text).gpu_memory == count


@pytest.mark.parametrize(
    "given",
    [
        *(
            {"gpu_memory": text}
            for text in ("10", "GB", "-1GB", "0GB", "1e9GB", "9999999TB", "10GB GB", 0, 40, True, 1.5)
        ),
        *({"device": text} for text in ("a,b", "ü", "x" * 101, "\n")),
        {"labels": [f"label{number}" for number in range(13)]},  # more than an index of PostgreSQL holds
        *({"labels": [text]} for text in ("a,b", "a b", "ü", "-a", "x" * 101)),
        {"device": "cpu", "gpu_memory": "1GB"},
    ],
)
def test_what_can_be_no_demand_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidSpec) as refused:
        resources.parse(**given)  # type: ignore[arg-type]  # words of the table
    assert refused.value.hint


def test_nothing_is_demanded_with_empty_words() -> None:
    assert resources.parse(device="", gpu_memory="", labels=["", " "]) == resources.ANY


def test_what_is_changed_replaces_the_part_of_its_name() -> None:
    first = demand(device="a100", gpu_memory="40GB", labels=["lab=a"])
    other = resources.changed(first, device=None, gpu_memory="", labels=["lab=b"])
    assert other == demand(device="a100", labels=["lab=b"])


def test_an_earlier_worker_offers_what_its_devices_are_called() -> None:
    offer = resources.offered(slots=(), devices=("CPU", "CPU"), labels=())
    assert demand(2).unmet(TRAIN, offer) == ()
    assert resources.offered(slots=(), devices=("NVIDIA A100 (0)",), labels=()).devices[0].kind == "gpu"
