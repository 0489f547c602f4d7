from orchestrator.cli import outlook
from orchestrator.core import specfields, specs

PARTS: list[specfields.Part] = ["all", "head"]


def test_where_the_classifier_learns_alone_no_memory_mode_is_advised() -> None:
    said = [outlook.memory(specs.JobSpec(weights="/some.pth", train=part)) for part in PARTS]
    assert ["with --memory lean" in one for one in said] == [True, False]
    assert said[1].endswith("of memory, whatever --memory says.")
