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


def test_lines_of_the_same_id_are_replaced_and_all_others_stay() -> None:
    def figure(name: str, what: str) -> measure.Figure:
        return measure.Figure(id=name, what=what, peer="theirs", ours=(1.0,), theirs=(2.0,), reach=0.5)

    before = f"{measure.table([figure('P2', 'a'), figure('P8', 'old'), figure('P11', 'b')])}\n\nA machine."
    after = measure.replaced(before, [figure("P8", "new"), figure("P8", "newer")])
    expected = [figure("P2", "a"), figure("P8", "new"), figure("P8", "newer"), figure("P11", "b")]
    assert after == f"{measure.table(expected)}\n\nA machine."
