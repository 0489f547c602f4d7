from typing import Any

import pytest

from orchestrator import errors
from orchestrator.core import jobs, specs, verbs

#: What is refused, and a word of what is said.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"priority": 1001}, "1001"),
    ({"priority": -(10**30)}, "too far"),  # more than any database's integer
    ({"name": "x" * 201}, "name"),
    ({"name": "@latest"}, "name"),
    ({"name": " @latest"}, "name"),
    ({"name": " "}, "name"),
    ({"idempotency_key": ""}, "key"),  # of a script whose variable is not set
    ({"name": "a\0b"}, "name"),  # PostgreSQL stores no NUL
    ({"tags": ("good", "b\nad")}, "tag"),
    ({"tags": ('run 12"b',)}, "cannot be a tag"),  # in JSON it holds the text of the tag b
    ({"tags": ("back\\slash",)}, "cannot be a tag"),
    ({"tags": (" blank",)}, "cannot be a tag"),
    ({"user": "x" * 201}, "name"),  # more than fits into an index of PostgreSQL with what jobs demand
    ({"idempotency_key": "\udcff"}, "key"),  # a byte of the command line that was no UTF-8
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_what_no_database_keeps_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidSpec) as refused:
        jobs.NewJob(**{"spec": specs.JobSpec(), "user": "ada", **fields})
    assert said in refused.value.message


def test_a_tag_that_is_added_later_is_looked_at_as_well_and_one_that_goes_is_not() -> None:
    with pytest.raises(errors.InvalidSpec, match="cannot be a tag"):
        verbs.Change(verb=verbs.Verb.TAG, add=('run 12"b',))
    assert verbs.Change(verb=verbs.Verb.TAG, remove=('run 12"b',)).remove


def test_the_outermost_values_are_fine() -> None:
    new = jobs.NewJob(spec=specs.JobSpec(), user="ada", name=f" {'ü' * 200}\n", tags=("two words",), priority=-1000)
    assert (new.name, new.priority) == ("ü" * 200, -1000)
