import math
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import measure, modes, results
from docs import markers
from tests.support import pictures


def test_sides_are_measured_in_turns() -> None:
    calls: list[str] = []

    def side(name: str, seconds: float) -> float:
        calls.append(name)
        return seconds

    taken = measure.in_turns(lambda: side("ours", 1), lambda: side("theirs", 2), pairs=3)
    assert calls == ["ours", "theirs"] * 3
    assert taken == ((1, 1, 1), (2, 2, 2))


def test_figure_is_the_median_of_the_ratios_not_the_ratio_of_the_medians() -> None:
    figure = measure.Figure(
        id="P0", what="ours", peer="theirs", ours=(1.0, 9.0, 2.0), theirs=(4.0, 10.0, 3.0), reach=0.5
    )
    assert figure.ratio == 2 / 3
    assert figure.row() == "| P0 | ours | 2.00 s | theirs | 4.00 s | **0.67** (0.25-0.90) | 0.50 |"


def test_lines_of_the_same_id_are_replaced_and_all_others_stay() -> None:
    def figure(name: str, what: str) -> measure.Figure:
        return measure.Figure(id=name, what=what, peer="theirs", ours=(1.0,), theirs=(2.0,), reach=0.5)

    before = f"{measure.table([figure('P2', 'a'), figure('P8', 'old'), figure('P11', 'b')])}\n\nA machine."
    after = measure.replaced(before, [figure("P8", "new"), figure("P8", "newer")])
    expected = [figure("P2", "a"), figure("P8", "new"), figure("P8", "newer"), figure("P11", "b")]
    assert after == f"{measure.table(expected)}\n\nA machine."


def run(row: str, seed: int, accuracy: float, *, before: float = 0.0) -> results.Run:
    return results.Run(
        row=row,
        seed=seed,
        spec_hash="f",
        accuracy=accuracy,
        seconds=600.0 + seed,
        before=before,
        memory=2**30,
        machine="A machine.",
    )


def test_results_are_a_band_over_the_seeds_that_were_run(tmp_path: Path) -> None:
    runs = [run("scratch", 1, 0.8), run("scratch", 0, 0.75), run("fine-tuned", 0, 0.9, before=1800)]
    results.keep(tmp_path / "runs.json", runs)
    assert results.known(tmp_path / "runs.json") == runs
    _, _, notebook, scratch, tuned, _, machine = results.table(results.ROWS, runs).splitlines()
    assert "not run yet" in notebook
    assert scratch.endswith("| 0, 1 | 0.750 to 0.800 | 10 min |  | 1,024 MiB |")
    assert "| 0.900 | 10 min | 30 min |" in tuned
    assert machine == "A machine."
    assert results.known(tmp_path / "none.json") == []
    assert markers.read("results", file=results.PAGE).startswith("| recipe | seeds |")


def test_rotations_are_of_training_pictures_alone_and_each_is_in_one_split(tmp_path: Path) -> None:
    photographs = pictures.image_folder(tmp_path / "pets", splits={"train": 6, "validation": 1}, size=(9, 5))
    made = results.rotations(photographs, tmp_path / "turned")
    names = {
        split: {turn.name: {path.name for path in turn.iterdir()} for turn in (made / split).iterdir()}
        for split in ("train", "val")
    }
    for split in names.values():
        assert split.keys() == {"0", "90", "180", "270"}
        assert len({frozenset(turn) for turn in split.values()}) == 1
    assert names["val"]["0"] == {"0.jpg", "10.jpg"}
    assert not names["train"]["0"] & names["val"]["0"]
    assert len(names["train"]["0"]) == 10
    upright, turned = (np.asarray(Image.open(made / "train" / turn / "1.jpg")) for turn in ("0", "90"))
    assert turned.shape[:2] == upright.shape[:2][::-1]
    assert results.rotations(photographs, tmp_path / "turned") == made


def test_what_fine_tuning_begins_with_fits_its_network() -> None:
    parts = [{name: fields.get(name) for name in results.NETWORK} for fields in (results._ROTATIONS, results._FINE)]
    assert parts[0] == parts[1]


def test_what_never_gets_there_is_said_to() -> None:
    never = measure.Figure(id="P9", what="ours", peer="theirs", ours=(math.inf,) * 3, theirs=(1, 2, 3), reach=0.3)
    assert never.row() == "| P9 | ours | never | theirs | 2.00 s | **never** | 0.30 |"


def test_a_mode_differs_where_its_seeds_are_further_off_than_noise() -> None:
    def ends(*accuracies: float) -> list[modes.Ended]:
        return [modes.Ended(accuracy=one, loss=1 - one) for one in accuracies]

    plain = ends(0.90, 0.91, 0.92)
    found = {"plain": plain, "alike": ends(0.905, 0.915, 0.91), "worse": ends(0.80, 0.81, 0.82)}
    _, _, _, alike, worse, _, _ = modes.table(found).splitlines()
    assert alike.endswith("| within noise |")
    assert "| -0.1000 | 0.0163 |" in worse
    assert worse.endswith("| **differs** |")
    assert markers.read("modes", file=results.PAGE)
