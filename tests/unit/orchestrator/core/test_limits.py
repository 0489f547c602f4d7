from orchestrator.core import limits

SOME = limits.Limits(users={"*": 2, "ada": 1}, tags={"big": 1})


def test_a_named_limit_wins_over_that_of_everybody_else() -> None:
    assert [SOME.user_is_full(user, 1) for user in ("ada", "bob")] == [True, False]
    assert SOME.user_is_full("bob", 2)


def test_without_a_limit_nobody_is_full() -> None:
    assert not limits.NONE
    assert not limits.NONE.user_is_full("ada", 1000)
    assert limits.NONE.full_tags([("big",)] * 9) == set()


def test_tags_are_counted_once_a_job() -> None:
    assert SOME.full_tags([("big", "big"), ("small",)]) == {"big"}
    assert limits.Limits(tags={"*": 2}).full_tags([("a", "a"), ("b",), ("b", "c")]) == {"b"}
