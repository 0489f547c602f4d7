"""The history checker: what clients were told, held against what the database says in the end."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from orchestrator.core import history, jobs, states
from tests.faults.soak.clients import Told

#: The events that each verb leaves. Who wants what is so already leaves none: that is an answer, too.
_EVENTS = {
    "cancel": {"cancel_requested", "cancelled"},
    "pause": {"pause_requested", "paused"},
    "resume": {"resumed", "pause_taken_back"},
    "retry": {"new_run"},
}
_LETS_GO_ON = _EVENTS["resume"] | _EVENTS["retry"]

#: Exit codes that leave open whether a command was done: it was killed, or the database went away.
_UNKNOWN = {None, 4}


def check(
    told: Sequence[Told], ended: Sequence[history.History], results: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """Yield what does not agree; `results` are the lines that `status` prints of each job in the end."""
    yield from _promises(told, [row.job for row in ended])
    for row in ended:
        mine = [entry for entry in told if entry.job == row.job.id]
        yield from _last_words(mine, row.job)
        yield from _deeds(mine, row)
        for line in sorted({line for entry in mine for line in entry.results} - set(results[row.job.id])):
            yield f"{row.job.id} was said to have {line!r}, and has not"


def _promises(told: Sequence[Told], ended: Sequence[jobs.Job]) -> Iterator[str]:
    """Yield jobs that were promised and are lost, that nobody has asked for, and that never ended."""
    ids = {job.id for job in ended}
    keys: dict[str, str] = {}
    for entry in told:
        if entry.asked == "submit" and entry.code == 0:
            if entry.job is None or entry.job not in ids:
                yield f"{entry.job} was promised to {entry.key}, and is lost"
            elif keys.setdefault(str(entry.key), entry.job) != entry.job:
                yield f"{entry.key} was promised {keys[str(entry.key)]}, then {entry.job}"
    asked = {entry.key for entry in told if entry.asked == "submit"}
    for job in ended:
        if job.idempotency_key not in asked or keys.get(str(job.idempotency_key), job.id) != job.id:
            yield f"nobody was promised {job.id}, of {job.idempotency_key}"
        if not job.final:
            yield f"{job.id} has not ended: {job.state}"


def _last_words(told: Sequence[Told], job: jobs.Job) -> Iterator[str]:
    """Yield ends that were told and are not true; a retry that was tried leaves open what came of the end before."""
    retried = max((entry.at for entry in told if entry.asked == "retry" and entry.code in {0, *_UNKNOWN}), default=0.0)
    for entry in told:
        if entry.code != 0:
            continue
        if entry.state == "succeeded" != job.state:
            yield f"{job.id} was said to have succeeded, and is {job.state}"
        if entry.at > retried and entry.state in {"failed", "cancelled"} - {job.state}:
            yield f"{job.id} was said to be {entry.state}, and is {job.state}"
        if entry.at > retried and entry.asked == "cancel" and job.state not in {"cancelled", "succeeded"}:
            yield f"{job.id} was to be cancelled, and is {job.state}"


def _deeds(told: Sequence[Told], row: history.History) -> Iterator[str]:
    """Yield verbs acknowledged and not done, done and not asked for, and claims of what was to stand still."""
    for verb, kinds in _EVENTS.items():
        done = [event.at for event in row.events if event.kind in kinds and event.actor == row.job.user]
        acknowledged = [entry.at for entry in told if entry.asked == verb and entry.code == 0]
        tried = [entry for entry in told if entry.asked == verb and entry.code in {0, *_UNKNOWN}]
        if len(done) > len(tried):
            yield f"{row.job.id}: {verb} was asked for {len(tried)} times and done {len(done)} times"
        for number, at in enumerate(acknowledged, 1):
            needed = number if kinds <= _LETS_GO_ON else 1
            if sum(moment.timestamp() <= at for moment in done) < needed:
                yield f"{row.job.id}: {verb} was acknowledged, and no event tells of it"
            if verb in {"cancel", "pause"} and (claimed := _claimed_after(at, row)):
                yield f"{row.job.id}: attempt {claimed} began after its {verb} was acknowledged"


def _claimed_after(at: float, row: history.History) -> int | None:
    """Return the attempt that began after a moment, though nobody had let the job go on."""
    for event in row.events:
        if event.at > datetime.fromtimestamp(at, tz=event.at.tzinfo):
            if event.kind in _LETS_GO_ON:
                return None
            if event.new_state is states.JobState.RUNNING:
                return event.attempt
    return None
