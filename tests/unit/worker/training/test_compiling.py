"""`compile`: the pass that the steps take is the compiled one, and a compiler that fails costs the job nothing.

On a CPU it is orch's own. torch's compiler, which is for a GPU, would take minutes on a busy machine: what stands for
it here runs the graph that torch has captured.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import environ
from orchestrator.core import networks
from tests.unit.worker.training import support, test_start
from worker import folders, protocol
from worker.models import fused, shared
from worker.training import checkpoint, compiling, kernels, stage, trainer

#: Three steps an epoch, the last of which is smaller.
STEPS = 6
RECIPE: dict[str, Any] = {"epochs": 2, "seed": 3}

Graph = Callable[..., Any]

needs_compiler = pytest.mark.skipif(shutil.which(environ.compiler()[0]) is None, reason="no C++ compiler")


class Compiler:
    """Hands back the graph that it is given, and counts how often it is made and run."""

    def __init__(self) -> None:
        self.made = self.ran = 0

    def __call__(self, graph: Graph, _inputs: Sequence[torch.Tensor]) -> Graph:
        self.made += 1

        def run(*values: Any) -> Any:
            self.ran += 1
            return graph(*values)

        return run


def missing(_graph: Graph, _inputs: Sequence[torch.Tensor]) -> Graph:
    raise RuntimeError("No working C++ compiler found in PATH\n\nSet TORCHDYNAMO_VERBOSE=1")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    torch.compiler.reset()
    found = Compiler()
    monkeypatch.setattr(compiling, "BACKEND", found)
    monkeypatch.setattr(kernels, "OWN", frozenset())
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # which the engine sets in its own process
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "")
    return found


def train(
    data: protocol.DatasetInfo, root: Path, *earlier: support.Follower, stop: int = 10_000, **fields: Any
) -> support.Follower:
    follower = support.Follower(support.stop_at(stop))
    recipe = support.spec(**RECIPE | fields)
    stage.train(data, support.assignment(root, recipe, attempt=len(earlier) + 1, earlier=earlier), follower)
    return follower


def compiled(root: Path, follower: support.Follower) -> bool:
    info, _ = follower.last(root)
    state = checkpoint.read(root / info.path, size=info.bytes, sha256=info.sha256).state
    (told,) = follower.of(protocol.Environment)
    assert (told.compiled, told.code) == (state.numerics.compiled, state.numerics.code)
    return told.compiled


def losses(follower: support.Follower) -> list[float]:
    return [value for _, name, value in follower.steps if name == "loss"]


def said(follower: support.Follower) -> list[str]:
    return [note.detail for note in follower.of(protocol.Note) if note.kind == "compile"]


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2, "layout": "channels_last", "dropout": 0.2}], ids=str)
def test_whole_batches_go_through_what_was_compiled_once_and_the_rest_the_usual_way(
    data: protocol.DatasetInfo, root: Path, compiler: Compiler, fields: dict[str, Any]
) -> None:
    plain = train(data, root / "plain", **fields)
    assert compiler.made == 0
    on = train(data, root / "on", compile=True, **fields)
    whole = 2 * 2  # of three batches an epoch, one has two pictures
    assert (compiler.made, compiler.ran) == (1, 1 + whole)
    assert losses(on) == pytest.approx(losses(plain), rel=1e-5)
    assert (compiled(root / "plain", plain), compiled(root / "on", on)) == (False, True)
    assert said(plain) == []
    assert said(on)[0].startswith("compiled for batches of 4 at 8 pixels in ")


def test_it_resumes_to_the_same_bits(data: protocol.DatasetInfo, root: Path, compiler: Compiler) -> None:
    whole = train(data, root / "whole", compile=True)
    first = train(data, root / "again", compile=True, stop=3)
    torch.compiler.reset()  # as another process would begin
    again = train(data, root / "again", first, compile=True)
    assert [*first.steps, *again.steps] == whole.steps
    assert support.same(again.last(root / "again")[1], whole.last(root / "whole")[1])
    assert said(again)
    assert compiled(root / "again", again)
    assert compiler.ran > 3
    kept = folders.compiled(Path(support.assignment(root / "again", support.spec()).data_dir))
    assert len(list(kept.iterdir())) == 1  # what the first one has made is found by the second


@needs_compiler
@pytest.mark.parametrize(
    "fields", [{}, {"accumulate": 2, "dropout": 0.2, "layout": "channels_last"}, {"head_epochs": 1}], ids=str
)
def test_on_a_cpu_every_batch_that_all_learns_from_goes_through_orchs_own_pass(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    if "head_epochs" in fields:
        fields = fields | {"weights": str(test_start.written(root)[0])}
    plain = train(data, root / "plain", **fields)
    passed: list[int] = []
    own = shared.Pass.__call__

    def counted(self: shared.Pass, images: torch.Tensor) -> torch.Tensor:
        passed.append(len(images))
        return own(self, images)

    monkeypatch.setattr(shared.Pass, "__call__", counted)
    on = train(data, root / "on", compile=True, **fields)
    assert passed == [4, 4, 2] * (2 - fields.get("head_epochs", 0))
    assert losses(on) == pytest.approx(losses(plain), rel=1e-3)
    assert (compiled(root / "plain", plain), compiled(root / "on", on)) == (False, True)
    assert said(on)[0].startswith("compiled the steps between convolutions in ")


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_orchs_own_pass_resumes_to_the_same_bits(data: protocol.DatasetInfo, root: Path, precision: str) -> None:
    whole = train(data, root / "whole", compile=True, precision=precision)
    first = train(data, root / "again", compile=True, precision=precision, stop=3)
    again = train(data, root / "again", first, compile=True, precision=precision)
    assert [*first.steps, *again.steps] == whole.steps
    assert support.same(again.last(root / "again")[1], whole.last(root / "whole")[1])
    assert compiled(root / "again", again)


@needs_compiler
def test_other_machine_code_is_told_for_the_last_bits_may_differ(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(data, root, compile=True, stop=3)
    same = train(data, root, first, compile=True, stop=4)
    monkeypatch.setattr(fused, "_FLAGS", ("-O1", *(flag for flag in fused._FLAGS if flag != "-O3")))
    other = train(data, root, first, same, compile=True)
    assert "numerics_changed" not in {note.kind for note in same.of(protocol.Note)}
    (changed,) = [note.detail for note in other.of(protocol.Note) if note.kind == "numerics_changed"]
    assert re.fullmatch("code: [0-9a-f]{12}, before [0-9a-f]{12}: the last bits may differ from here on", changed)


def test_where_orchs_own_cannot_be_compiled_the_training_is_the_plain_one(
    data: protocol.DatasetInfo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(data, root / "plain")
    monkeypatch.setenv("CXX", str(root / "no-compiler"))
    without = train(data, root / "without", compile=True)
    assert without.steps == plain.steps
    assert not compiled(root / "without", without)
    assert said(without)[0].startswith("not compiled, and computed the usual way: FileNotFoundError")


@pytest.mark.parametrize("memory", ["plain", "lean"])
def test_a_loss_scale_that_was_restored_stands_where_the_pass_is_compiled_again(
    compiler: Compiler, tmp_path: Path, memory: networks.Memory
) -> None:
    spec = support.spec(precision="fp16", compile=True)
    learner = trainer.Trainer(spec, data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=3)
    learner.use(kernels.Kernels(precision="fp16"))
    learner.model.use_memory(memory)
    scaled = learner._scaler.state_dict() | {"scale": 8.0}
    learner._scaler.load_state_dict(scaled)
    learner.compile(tmp_path / "made")
    assert compiler.made == (memory == "plain")
    assert learner._scaler.state_dict() == scaled


def test_a_training_that_began_without_a_compiler_goes_on_without(
    data: protocol.DatasetInfo, root: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, root / "whole")
    monkeypatch.setattr(compiling, "BACKEND", missing)
    first = train(data, root / "again", compile=True, stop=3)
    monkeypatch.setattr(compiling, "BACKEND", compiler)
    torch.compiler.reset()
    again = train(data, root / "again", first, compile=True)
    assert compiler.made == 0
    assert [*first.steps, *again.steps] == whole.steps
    assert "numerics_changed" not in {note.kind for note in again.of(protocol.Note)}


def test_code_in_a_folder_that_others_may_write_in_is_not_run(
    data: protocol.DatasetInfo, root: Path, compiler: Compiler
) -> None:
    told = support.assignment(root, support.spec(**RECIPE, compile=True))
    folder = folders.compiled(Path(told.data_dir))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    follower = support.Follower()
    stage.train(data, told, follower)
    assert "others may write in it" in said(follower)[0]
    assert compiler.made == 0


def test_a_compiler_that_fails_is_told_and_the_training_is_the_plain_one(
    data: protocol.DatasetInfo, root: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(data, root / "plain")
    first = train(data, root / "with", compile=True, stop=5)
    monkeypatch.setattr(compiling, "BACKEND", missing)
    torch.compiler.reset()
    without = train(data, root / "without", compile=True)
    assert without.steps == plain.steps
    assert not compiled(root / "without", without)
    (detail,) = said(without)
    assert detail.startswith("not compiled, and computed the usual way: ")
    assert "No working C++ compiler" in detail
    assert "TORCHDYNAMO" not in detail
    torch.compiler.reset()
    elsewhere = train(data, root / "with", first, compile=True)
    assert compiler.made
    assert not compiled(root / "with", elsewhere)
    kinds = {note.kind: note.detail for note in elsewhere.of(protocol.Note)}
    assert "compiled: False, before True" in kinds["numerics_changed"]
    assert elsewhere.steps[-1][0] == STEPS


def test_an_attempt_that_keeps_less_for_backward_is_not_compiled(
    data: protocol.DatasetInfo, root: Path, compiler: Compiler
) -> None:
    follower = support.Follower()
    told = support.assignment(root, support.spec(**RECIPE, compile=True), memory="lean")
    stage.train(data, told, follower)
    assert said(follower) == ["not compiled, and computed the usual way: memory is lean"]
    assert compiler.made == 0


def test_trying_changes_neither_network_nor_generators(compiler: Compiler, tmp_path: Path) -> None:
    spec = support.spec(dropout=0.5, compile=True)
    learner = trainer.Trainer(spec, data_hash="", classes=("a", "b"), device=torch.device("cpu"), steps_per_epoch=3)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    drawn = torch.get_rng_state()
    learner.compile(tmp_path / "made")
    assert compiler.ran == 1
    assert support.same(before, dict(learner.model.state_dict()))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
