import random

import numpy as np
import torch

from worker.training import checkpoint, numerics

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    normal = np.random.normal()  # noqa: NPY002 - the global generator is what is tested
    return torch.rand(()).item(), random.random(), random.gauss(0, 1), float(normal)  # noqa: S311 - no secret


def test_restored_generators_draw_the_same_again() -> None:
    numerics.seed(2**62 + 1)
    draw()  # leaves half a pair of normal numbers behind in Python's and NumPy's generator
    told, tensors = numerics.generators(), numerics.generator_tensors(CPU)
    wanted = draw()
    numerics.seed(7)
    assert draw() != wanted
    numerics.restore_generators(numerics.Generators.model_validate_json(told.model_dump_json()), tensors, CPU)
    assert draw() == wanted


def test_one_seed_gives_one_stream() -> None:
    numerics.seed(5)
    first = draw()
    numerics.seed(5)
    assert draw() == first
    numerics.seed(6)
    assert draw() != first


def test_numerics_survive_json_and_name_what_differs() -> None:
    here = numerics.Numerics.here(CPU)
    again = numerics.Numerics.model_validate_json(here.model_dump_json())
    assert not here.differences(again)
    other = here.model_copy(update={"cpu": "another"})
    assert other.differences(here) == [f"cpu: another, before {here.cpu}"]
    assert checkpoint.State.model_fields["numerics"].annotation is numerics.Numerics
