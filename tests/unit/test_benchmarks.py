from benchmarks import measure


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
