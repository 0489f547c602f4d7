"""What earlier jobs took, as the store has it: each thing is read once, and of a few jobs alone."""

from orchestrator.core.jobs import Attempt, EpochMetric, Job, JobFilter
from orchestrator.core.states import JobState
from orchestrator.store.base import Store

#: Jobs that are looked through for those that are like another.
LOOKED_THROUGH = 100


class Experience:
    """The jobs that ran of late, with their attempts and epochs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: list[Job] | None = None
        self._epochs: dict[str, list[EpochMetric]] = {}
        self._attempts: dict[str, list[Attempt]] = {}

    def jobs(self) -> list[Job]:
        """Return those that have succeeded or run, the newest first."""
        if self._jobs is None:
            states = (JobState.SUCCEEDED, JobState.RUNNING)
            self._jobs = self._store.jobs(JobFilter(states=states, limit=LOOKED_THROUGH))
        return self._jobs

    def epochs(self, job_id: str) -> list[EpochMetric]:
        """Return the epochs of a job that count."""
        if job_id not in self._epochs:
            self._epochs[job_id] = self._store.epochs(job_id)
        return self._epochs[job_id]

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job."""
        if job_id not in self._attempts:
            self._attempts[job_id] = self._store.attempts(job_id)
        return self._attempts[job_id]

    def counts(self, data: str) -> dict[str, int] | None:
        """Return how many pictures each split of a data source has, where a job has found that out."""
        known = next((job.data_hash for job in self.jobs() if job.spec.data == data and job.data_hash), None)
        dataset = self._store.dataset(known) if known else None
        return dataset.counts if dataset else None
