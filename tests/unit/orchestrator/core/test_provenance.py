import pytest

from orchestrator.core import provenance


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("# branch.oid abc\n# branch.head main\n", ("abc", "main", False)),
        ("# branch.oid abc\n# branch.head (detached)\n1 .M N... 1 2 3 a b f.py\n", ("abc", None, True)),
        ("# branch.oid (initial)\n# branch.head main\n", (None, "main", False)),
    ],
)
def test_status_names_commit_branch_and_changes(said: str, found: tuple[str | None, str | None, bool]) -> None:
    source = provenance.commit_of(said)
    assert (source.commit, source.branch, source.dirty) == found


def test_versions_differ_where_both_are_known() -> None:
    here = {"python": "3.11.7", "torch": "2.14.1", "celery": "5.7"}
    assert provenance.differences(here, {"torch": "2.14.0", "celery": "5.6"}) == ["torch: 2.14.1, 2.14.0"]
