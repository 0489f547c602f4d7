"""The contract of the store: what every implementation does, and what its one test suite checks.

Seven groups of methods. For people: to submit and look up, steering, places (of jobs that wait), audits. For workers:
supervisors (claim, then fenced writes), the fleet (workers and the reconciler), notices. A fenced write raises
`errors.Stale` when the job has another attempt or is no longer running, and then nothing of it is written. Every change
of state writes its event in the same transaction. Every method raises `errors.DatabaseUnavailable` when the database is
out of reach, and also where a commit's answer was lost: a fenced write may simply be done again, and a claim of which
its worker has not heard is returned by the next call.
"""

from typing import Protocol

from orchestrator.store import peoplebase, workerbase


class Store(
    peoplebase.People,
    peoplebase.Steering,
    peoplebase.Places,
    workerbase.Supervisors,
    workerbase.Fleet,
    workerbase.Notices,
    peoplebase.Audits,
    Protocol,
):
    """The whole store."""

    def close(self) -> None:
        """Let go of every connection."""
        ...
