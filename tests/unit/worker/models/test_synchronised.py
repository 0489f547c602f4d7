"""The layer that several ranks share is, for one alone, the plain one; ranks of threads have its numbers together."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from worker.models import densenet, synchronised

PARTS = [(6,), (3, 3), (1, 5), (4, 0, 2)]


class Meeting:
    """Ranks that are threads of this process."""

    def __init__(self, ranks: int) -> None:
        self._values: list[torch.Tensor | None] = [None] * ranks
        self._all = threading.Barrier(ranks, timeout=60)

    def met(self, rank: int, values: torch.Tensor) -> torch.Tensor:
        self._values[rank] = values
        self._all.wait()
        found = torch.stack([each for each in self._values if each is not None])
        self._all.wait()
        return found


class Peers:
    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self._rank = meeting, rank

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        return self._meeting.met(self._rank, values)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values.copy_(self._meeting.met(self._rank, values.clone()).sum(dim=0))


def layer() -> nn.BatchNorm2d:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    return plain


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_of_a_batch_come_out_as_the_whole(parts: tuple[int, ...], layout: torch.memory_format) -> None:
    x = (torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 3 + 5).to(memory_format=layout)
    wish = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    plain, whole = layer(), x.clone().requires_grad_()
    expected = plain(whole)
    (expected * wish).sum().backward()

    meeting = Meeting(len(parts))
    layers = [layer() for _ in parts]  # here: threads would draw from one generator

    def rank(number: int, own: torch.Tensor, wished: torch.Tensor) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
        norm = synchronised.BatchNorm2d(layers[number], Peers(meeting, number))
        leaf = own.clone().requires_grad_()
        out = norm(leaf)
        (out * wished).sum().backward()
        assert leaf.grad is not None
        return norm, out.detach(), leaf.grad

    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(rank, range(len(parts)), torch.split(x, list(parts)), torch.split(wish, list(parts))))
    norms, outs, gradients = zip(*found, strict=True)
    torch.testing.assert_close(torch.cat(outs), expected.detach())
    assert whole.grad is not None
    torch.testing.assert_close(torch.cat(gradients), whole.grad)
    for name, parameter in plain.named_parameters():
        summed = torch.stack([norm.get_parameter(name).grad for norm in norms]).sum(dim=0)
        torch.testing.assert_close(summed, parameter.grad, rtol=1e-4, atol=1e-4)
    for norm in norms:
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(norm.get_buffer(name), buffer)


def test_half_precision_comes_out_in_half_and_its_statistics_in_full() -> None:
    plain, norm = layer(), synchronised.BatchNorm2d(layer(), Peers(Meeting(1), 0))
    torch.manual_seed(3)
    x = torch.randn(4, 3, 4, 4).bfloat16()
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, found = plain(one), norm(other)
    wish = torch.randn(x.shape)
    (expected.float() * wish).sum().backward()
    (found.float() * wish).sum().backward()
    assert norm.running_mean is not None
    assert (found.dtype, norm.running_mean.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other.grad, one.grad, rtol=0.05, atol=0.05)
    torch.testing.assert_close(norm.running_mean, plain.running_mean, rtol=1e-2, atol=1e-3)


def test_a_converted_network_keeps_its_parameters_and_evaluates_to_the_same_bits() -> None:
    network = densenet.DenseNet(growth_rate=4, blocks=(2, 2), num_classes=2, stem="imagenet")
    network(torch.randn(2, 3, 32, 32))
    network.eval()
    parameters, state = list(network.parameters()), {name: each.clone() for name, each in network.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    before = network(x)
    synchronised.convert(network, Peers(Meeting(1), 0))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, synchronised.BatchNorm2d) for norm in norms)
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert list(network.state_dict()) == list(state)
    assert torch.equal(network(x), before)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes what takes something from the program's memory to a GPU, or back: the program waits for that."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        places = {each.device.type for each in (*args, made) if isinstance(each, torch.Tensor)}
        if len(places) > 1 or func is torch.ops.aten._local_scalar_dense.default:
            self.met.append(str(func))
        return made


def test_on_a_gpu_no_layer_waits_for_it() -> None:
    with FakeTensorMode(), torch.device("cuda"):
        norm, x = synchronised.BatchNorm2d(layer(), Peers(Meeting(1), 0)), torch.empty(2, 3, 4, 4)
        waits = Waits()
        with waits, torch.no_grad():
            norm(x)
    assert waits.met == []
