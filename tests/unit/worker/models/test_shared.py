"""The pass with kernels of orch's own computes what the network does, closer to the truth than it needs to be."""

import copy
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator import environ
from tests.unit.worker.models.test_memory import KINDS
from worker.models import densenet, fused, shared

pytestmark = pytest.mark.skipif(shutil.which(environ.compiler()[0]) is None, reason="no C++ compiler")

#: Beside those: a pooling whose sides are odd at the end of each block, dropout between a convolution and its pooling.
CASES = [(kind, side) for kind in KINDS for side in (16, 18)] + [
    ({"growth_rate": 12, "blocks": (2, 2, 2), "transition_relu": True}, 21),
    ({"growth_rate": 5, "blocks": (2, 2), "dropout": 0.4}, 15),
]
COUNT = 4
#: Two fp32 networks are hardly further apart: where they round to different sides of a ReLU's zero, a gradient is lost.
ROUNDED = 0.1


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> fused.Kernels:
    return fused.built(tmp_path_factory.mktemp("kernels"))


def network_of(kind: dict[str, Any]) -> densenet.DenseNet:
    torch.manual_seed(0)
    network = densenet.DenseNet(num_classes=3, **kind).to(memory_format=torch.channels_last)
    for name, value in network.named_parameters():
        if value.ndim == 1:  # weights and biases of norms, which begin as ones and zeros
            value.data.add_(torch.randn_like(value), alpha=0.3 if "weight" in name else 1.0)
    return network


def pictures(side: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    images = torch.randn(COUNT, 3, side, side, generator=source) + 0.5
    return images.to(dtype).contiguous(memory_format=torch.channels_last)


def numbers(network: densenet.DenseNet, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return logits, gradients and statistics behind a pass."""
    logits.float().square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    assert len(gradients) == len(list(network.parameters()))
    return gradients | dict(network.named_buffers()) | {"logits": logits.detach()}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest distance of two numbers of the same name, by the size of what lies around them."""
    assert one.keys() == other.keys()
    # A bias in front of a BatchNorm has no gradient but for rounding.
    sizes = {name: max(float(value.double().abs().max()), 1e-2) for name, value in other.items()}
    return max(float((one[name].double() - other[name].double()).abs().max()) / sizes[name] for name in one)


@pytest.mark.parametrize(("kind", "side"), CASES, ids=str)
def test_gradients_statistics_and_logits_are_as_close_to_the_truth_as_those_of_the_network(
    kernels: fused.Kernels, kind: dict[str, Any], side: int
) -> None:
    network = network_of(kind)
    exact, ours = copy.deepcopy(network).double(), copy.deepcopy(network)
    images = pictures(side)
    passes = []
    for one, made in ((exact, exact), (network, network), (ours, shared.Pass(ours, kernels))):
        torch.manual_seed(5)  # of dropout
        passes.append(numbers(one, made(images.to(next(one.parameters()).dtype))))
    truth, plain, fast = passes
    if kind.get("dropout"):  # which draws other numbers in fp64
        assert apart(fast, plain) < ROUNDED
    else:
        assert apart(fast, truth) <= max(2 * apart(plain, truth), 1e-4)
    assert {int(value) for name, value in fast.items() if name.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_are_as_close_to_the_truth_as_those_of_the_network(kernels: fused.Kernels, dtype: torch.dtype) -> None:
    network = network_of(KINDS[0])
    exact, ours = copy.deepcopy(network).double(), copy.deepcopy(network)
    images = pictures(16)
    truth = numbers(exact, exact(images.double()))
    halves = []
    for one, made in ((network, network), (ours, shared.Pass(ours, kernels))):
        with torch.autocast("cpu", dtype=dtype):
            logits = made(images)
        halves.append(numbers(one, logits))
    plain, fast = halves
    assert fast["logits"].dtype == plain["logits"].dtype == dtype
    assert apart(fast, truth) <= 1.5 * apart(plain, truth)


def test_two_passes_have_the_same_bits(kernels: fused.Kernels) -> None:
    network = network_of(KINDS[0])
    one, other = copy.deepcopy(network), copy.deepcopy(network)
    found = [numbers(each, shared.Pass(each, kernels)(pictures(16))) for each in (one, other)]
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_second_batch_adds_to_gradients_and_statistics(kernels: fused.Kernels) -> None:
    exact, ours = network_of(KINDS[0]).double(), network_of(KINDS[0])
    fast = shared.Pass(ours, kernels)
    for side in (16, 12):
        truth, found = numbers(exact, exact(pictures(side).double())), numbers(ours, fast(pictures(side)))
    assert apart(found, truth) < ROUNDED
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {2}


@pytest.mark.parametrize("backward", [True, False])
def test_a_pass_leaves_nothing_behind(
    kernels: fused.Kernels, monkeypatch: pytest.MonkeyPatch, *, backward: bool
) -> None:
    buffers: list[weakref.ref[Any]] = []
    begin = shared._Buffer.__init__

    def noted(self: Any, *given: Any) -> None:
        buffers.append(weakref.ref(self))
        begin(self, *given)

    monkeypatch.setattr(shared._Buffer, "__init__", noted)
    logits = shared.Pass(network_of(KINDS[0]), kernels)(pictures(16))
    assert all(one() for one in buffers)
    if backward:  # gives the memory back before the next pass, whose loss takes the place of this one's
        logits.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        kept = [one() for one in buffers]
        assert [(one.total, one.rows.untyped_storage().nbytes()) for one in kept if one] == [(None, 0)] * 2
        del kept
    del logits
    assert [one() for one in buffers] == [None] * 2


def test_a_number_that_is_not_finite_comes_out(kernels: fused.Kernels) -> None:
    network = network_of(KINDS[0])
    images = pictures(16)
    images[0, 0, 0, 0] = float("nan")
    assert not torch.isfinite(shared.Pass(network, kernels)(images)).all()


def test_a_single_number_of_a_channel_has_no_variance(kernels: fused.Kernels) -> None:
    network = network_of({"growth_rate": 4, "blocks": (2, 2)})
    with pytest.raises(ValueError, match="more than one number"):
        shared.Pass(network, kernels)(pictures(2)[:1])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [2, 64, 1000])
def test_moments_are_exact_far_from_zero(kernels: fused.Kernels, rows: int, threads: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(rows, 20)[:, 1:18] * torch.linspace(0.1, 10, 17) + torch.linspace(-300, 300, 17)
    copied, moments = torch.zeros(rows, 40), torch.zeros(3, 17)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernels.moments(maps, to=moments, copy=copied[:, 5:22])
    finally:
        torch.set_num_threads(before)
    exact = torch.var_mean(maps.double(), 0, correction=0)
    mean, variance, inverse = moments.double()
    torch.testing.assert_close((variance, mean), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(inverse, (exact[0] + nn.BatchNorm2d(1).eps).rsqrt(), rtol=1e-6, atol=0)
    assert torch.equal(copied[:, 5:22], maps)
    assert not copied[:, :5].any()
    assert not copied[:, 22:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_are_read_and_rounded_as_torch_does(kernels: fused.Kernels, dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).unsqueeze(1)
    one, nothing = torch.ones(1), torch.zeros(1)
    for scale in (
        one,
        one * 1.0039,
        one * 2.0**-11,
        one * 3 * 2.0**-7,
        one * 2.0**5,
    ):  # between two, subnormal, too large
        norm = fused.Norm(moments=torch.empty(3, 1), weight=one, affine=torch.stack([scale, nothing]))
        made = torch.empty_like(every)
        kernels.normalise(every, norm, to=made)
        torch.testing.assert_close(made, (every.float() * scale).to(dtype), rtol=0, atol=0, equal_nan=True)


def test_they_are_compiled_once_and_anew_where_they_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    (torn / "fused.so").write_bytes(b"torn")
    fused.built(whole)
    assert [path.name for path in whole.iterdir()] == ["fused.so"]
    with monkeypatch.context() as without:
        without.setenv("CXX", str(tmp_path / "no-compiler"))
        fused.built(whole)
        with pytest.raises(FileNotFoundError, match="no-compiler"):
            fused.built(torn)
    fused.built(torn)
    assert (torn / "fused.so").read_bytes() != b"torn"


def test_a_compiler_of_several_words_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho no such "$1" >&2\nexit 3\n', encoding="utf-8")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", f"{compiler} header")
    with pytest.raises(RuntimeError, match="ended with 3: no such header"):
        fused.built(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["compiler"]
