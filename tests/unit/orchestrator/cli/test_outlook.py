from orchestrator.cli import outlook
from orchestrator.core import specfields, specs

PARTS: list[specfields.Part] = ["all", "head"]


def test_where_the_classifier_learns_alone_no_memory_mode_is_advised() -> None:
    said = [outlook.memory(specs.JobSpec(weights="/some.pth", train=part)) for part in PARTS]
    assert ["with --memory lean" in one for one in said] == [True, False]
    assert said[1].endswith("of memory, whatever --memory says.")


def test_what_memory_it_takes_is_said_in_its_own_precision() -> None:
    whole, halves, auto = (outlook.memory(specs.JobSpec(precision=one)) for one in ("fp32", "bf16", "auto"))
    assert halves.startswith("On a CPU in bf16 the training takes about ")
    assert halves != whole.replace("fp32", "bf16")
    assert auto == whole.removesuffix(".") + "; less where auto takes bf16."


def test_beside_a_compiled_training_stands_what_the_modes_take_that_go_without() -> None:
    usual, compiled = (outlook.memory(specs.JobSpec(compile=one)) for one in (False, True))
    beginning, without = compiled.split(" of memory, without --compile ")
    assert usual.endswith(without.replace(",", " of memory,", 1))
    assert not usual.startswith(beginning)
