"""Layout and precision: chosen once, kept in the checkpoint, obeyed by whoever goes on; the defaults change no bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import config
from tests.unit.worker.training import support
from worker import picks, processor, protocol
from worker.models import zoo
from worker.training import checkpoint, kernels, stage

CPU = torch.device("cpu")
NETWORK: dict[str, Any] = {"network": "densenet_tiny", "growth_rate": 8, "epochs": 1}


def train(
    data: protocol.DatasetInfo, root: Path, *earlier: support.Follower, stop: int = 10_000, **fields: Any
) -> support.Follower:
    follower = support.Follower(support.stop_at(stop))
    recipe = support.spec(**NETWORK | fields)
    told = support.assignment(root, recipe, attempt=len(earlier) + 1, earlier=earlier)
    stage.train(data, told, follower)
    return follower


def state(root: Path, follower: support.Follower) -> checkpoint.State:
    info, _ = follower.last(root)
    return checkpoint.read(root / info.path, size=info.bytes, sha256=info.sha256).state


@pytest.mark.parametrize(
    "fields",
    [{"layout": "channels_last", "ema": 0.9}, {"precision": "bf16"}, {"precision": "fp16", "clip_norm": 0.5}],
    ids=str,
)
def test_it_differs_little_from_the_plain_training_and_resumes_to_the_same_bits(
    data: protocol.DatasetInfo, root: Path, fields: dict[str, Any]
) -> None:
    plain = train(data, root / "plain", **{name: value for name, value in fields.items() if name == "clip_norm"})
    whole = train(data, root / "whole", **fields)
    losses = [[value for _, name, value in one.steps if name == "loss"] for one in (plain, whole)]
    assert losses[0][:1] == pytest.approx(losses[1][:1], rel=2e-2)
    kept = state(root / "whole", whole)
    used = {name: value for name, value in fields.items() if name in kernels.Kernels.model_fields}
    assert kept.numerics.kernels == kernels.Kernels(**used)
    assert bool(kept.scaler) == (fields.get("precision") == "fp16")
    first = train(data, root / "again", stop=3, **fields)
    again = train(data, root / "again", first, **fields)
    assert [*first.steps, *again.steps] == whole.steps
    assert support.same(again.last(root / "again")[1], whole.last(root / "whole")[1])


def test_bf16_is_computed_in_bf16(data: protocol.DatasetInfo, root: Path) -> None:
    assert train(data, root, precision="bf16").steps != train(data, root / "plain").steps


def test_auto_is_decided_once_and_obeyed_afterwards(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"contiguous": 2.0, "channels_last": 1.0}
    monkeypatch.setattr(kernels, "_pass", lambda side, _network, _images: slow[side.layout])
    monkeypatch.setattr(kernels, "fast_precision", lambda _device: "fp32")
    first = train(data, root, stop=9, layout="auto", precision="auto")
    (note,) = first.of(protocol.Note)
    assert note.kind == "kernels"
    assert note.detail.endswith("layout channels_last: contiguous 2 s a pass, channels_last 1 s a pass")
    assert sum(said.done == 0 for said in first.of(protocol.Progress)) == 2 * 3 + 1  # one before each pass
    slow["channels_last"] = 3.0
    second = train(data, root, first, layout="auto", precision="auto")
    assert not second.of(protocol.Note)
    assert state(root, second).numerics.layout == "channels_last"


def test_a_second_job_like_it_does_not_measure_again(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []

    def counted(side: kernels.Kernels, _network: object, _images: object) -> float:
        passes.append(side.layout)
        return {"contiguous": 2.0, "channels_last": 1.0}[side.layout]

    def noted(**fields: Any) -> str:
        passes.clear()
        (note,) = train(data, root, layout="auto", **fields).of(protocol.Note)
        return note.detail

    monkeypatch.setattr(kernels, "_pass", counted)
    assert "2 s a pass" in noted()
    assert passes
    assert noted() == "layout channels_last, as was measured on this host before"
    assert passes == []
    for fields in ({"batch_size": 5}, {"network": "densenet_bc_40_12", "blocks": (1,)}):
        assert "2 s a pass" in noted(**fields)
    monkeypatch.setattr(processor, "MODEL", "another processor")
    assert "2 s a pass" in noted()


def test_a_pass_that_is_compiled_on_a_cpu_has_the_layout_of_its_kernels_unmeasured(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_pass", lambda *_: pytest.fail("it was measured"))
    follower = train(data, root, layout="auto", compile=True)
    chosen, _ = follower.of(protocol.Note)
    assert chosen.detail == "layout channels_last, in which the compiled pass computes"
    assert state(root, follower).numerics.layout == "channels_last"


def test_where_backward_keeps_less_nothing_is_compiled_and_the_layout_is_measured(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_pass", lambda side, *_: {"contiguous": 1.0, "channels_last": 2.0}[side.layout])
    follower = support.Follower()
    recipe = support.spec(**NETWORK, layout="auto", compile=True)
    stage.train(data, support.assignment(root, recipe, memory="lean"), follower)
    assert "layout contiguous: contiguous 1 s a pass, channels_last 2 s a pass" in {
        note.detail for note in follower.of(protocol.Note)
    }
    assert state(root, follower).numerics.layout == "contiguous"


def test_a_pick_that_cannot_be_read_or_written_is_none(tmp_path: Path) -> None:
    settings = config.Settings(home=tmp_path / "home")
    pick, other = (picks.Pick(settings, {"threads": threads}) for threads in (1, 2))
    assert pick.recall() is None
    pick.keep("contiguous")
    assert (pick.recall(), other.recall()) == ("contiguous", None)
    (file,) = (settings.data_dir / picks.FOLDER).iterdir()
    for content in ("", "[]", '{"picked": "channels_last"}'):
        file.write_text(content)
        assert pick.recall() is None
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("no folder")
    pick.keep("contiguous")
    assert pick.recall() is None


def test_measuring_changes_neither_network_nor_generators() -> None:
    torch.manual_seed(3)
    learner = support.spec(layout="auto", dropout=0.5)
    network = zoo.build(learner, 2)
    before, drawn = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    chosen, said = kernels.choose(learner, network, CPU, look=lambda: None)
    assert said is not None
    assert chosen.layout in said
    assert support.same(before, dict(network.state_dict()))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_cpu_without_bf16_keeps_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert kernels.fast_precision(CPU) == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert kernels.fast_precision(CPU) == "bf16"


def test_a_gpu_computes_fp32_as_ieee_has_it() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        kernels.set_up_gpu()
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (True, False, False)
        gpu = torch.device("cuda")
        assert kernels.gpu_switches(gpu) == {"tf32": False, "cudnn_benchmark": True}
        assert kernels.gpu_switches(CPU) == {"tf32": False, "cudnn_benchmark": False}
        matmul.allow_tf32 = True
        assert kernels.gpu_switches(gpu)["tf32"]
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
