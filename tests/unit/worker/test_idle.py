import pytest

from orchestrator.core import jobs, resources
from orchestrator.store import sql
from tests.contract import parts
from worker import idle


@pytest.mark.parametrize(
    ("mine", "read"),
    [
        ((), [2, None]),  # jobs for others may hide one of its own
        ((3,), [2, None]),
        ((1,), [2]),
    ],
)
def test_whether_a_node_is_idle_the_first_jobs_tell_where_they_are_its_own(
    store: sql.SqlStore, monkeypatch: pytest.MonkeyPatch, mine: tuple[int, ...], read: list[int | None]
) -> None:
    elsewhere = resources.Demand(labels=("elsewhere",))
    for number in range(4):
        parts.submit(store, demand=resources.ANY if number in mine else elsewhere)
        store.finish(parts.claimed(store), parts.DONE)  # any worker downloads
    asked, look = list[int | None](), store.jobs

    def looking(which: jobs.JobFilter) -> list[jobs.Job]:
        asked.append(which.limit)
        return look(which)

    monkeypatch.setattr(store, "jobs", looking)
    monkeypatch.setattr(idle, "_LOOKED_AT", 2)
    assert idle.is_idle(store, worker="w", root=parts.ROOT, offer=resources.ONE_CPU) is not bool(mine)
    assert asked == read
