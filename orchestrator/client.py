"""orch from Python: what the command line does, as methods that return frozen objects and raise `orchestrator.errors`.

from orchestrator import Client

with Client() as client:
    job = client.submit(data="digits", network="densenet_tiny", image_size=16, epochs=3)
    job = client.wait(job)
    print(job.best_accuracy, client.predict(job, ["seven.png"])[0].guesses)
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Self, TypeVar, cast

from orchestrator import config, errors
from orchestrator.core import masking, resources
from orchestrator.core.jobs import EpochMetric, Evaluation, Job, JobFilter, NewJob
from orchestrator.core.specs import JobSpec
from orchestrator.core.states import JobState
from orchestrator.service import backup as backing
from orchestrator.service import bell, context, control, follow, jobfile, provenance
from orchestrator.service import bundle as bundling
from orchestrator.service import predict as prediction
from orchestrator.service import reproduce as reproduction
from orchestrator.service import restore as restoring
from orchestrator.service import submit as submitting

_One = TypeVar("_One")


class Metrics(tuple[EpochMetric, ...]):
    """The closed epochs of a job, by epoch, train before val: rows as they are, or a table for pandas."""

    __slots__ = ()

    def to_dataframe(self) -> Any:
        """Return a `pandas.DataFrame`, a row for each epoch and split, a column for each field of `EpochMetric`.

        Raises:
            OrchError: pandas is not installed.

        """
        try:
            import pandas  # noqa: ICN001, PLC0415 - an extra, and half a second
        except ModuleNotFoundError as error:
            raise errors.OrchError(
                "There is no table without pandas.",
                why="It is not installed.",
                hint="pip install 'orch[pandas]'; or use the rows themselves: `for row in client.metrics(job)`.",
            ) from error
        columns = [field.name for field in dataclasses.fields(EpochMetric)]
        return pandas.DataFrame([dataclasses.asdict(row) for row in self], columns=columns)


class Client:
    """One installation: its jobs, and what can be done with them. Threads may share one; processes may not.

    A job is given as a `Job`, or as text like on the command line: an id, a prefix of three or more characters, a name,
    `@latest`, `@last-failed`. Methods raise `NotFound`, or `Ambiguous`, where no job answers to that, and
    `DatabaseUnavailable` where the database is out of reach.
    """

    def __init__(self, home: str | PathLike[str] | None = None) -> None:
        """Open the installation in `home`, else the one that the settings name, as the command line does.

        Raises:
            InvalidSetting: a setting that cannot be used.
            DatabaseUnavailable: the database is out of reach.
            SchemaMismatch: it has another version than this orch.

        """
        settings = config.load(home=None if home is None else Path(home))
        with ExitStack() as resources:
            opened = resources.enter_context(context.opened(settings))
            self._resources = resources.pop_all()
        self._settings, self._store = opened.settings, opened.store
        self._ring = functools.partial(bell.ring, self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._resources.close()

    def submit(
        self,
        spec: JobSpec | None = None,
        *,
        recipe: str | None = None,
        name: str | None = None,
        tags: Iterable[str] = (),
        priority: int = 0,
        after: Iterable[str | Job] = (),
        not_before: datetime | None = None,
        device: str | None = None,
        gpu_memory: str | int | None = None,
        labels: Iterable[str] = (),
        user: str | None = None,
        idempotency_key: str | None = None,
        notify: Iterable[str] | None = None,
        notify_on: Iterable[str] | None = None,
        require_broker: bool = False,
        force: bool = False,
        **fields: Any,
    ) -> Job:
        """Queue a job, and return it once it is on disk.

        What to train is a whole `spec`, or `fields` of one (`epochs=5, lr=1e-4`), over a `recipe` where one is named.
        `after` are jobs whose success it waits for, as text also `JOB:any` for any end. `device` (cpu, gpu, or a part
        of a GPU's name), `gpu_memory` ("10GB", or bytes) and `labels` are what its worker must have. A known
        `idempotency_key` returns the earlier job. `notify` are URLs that are told `notify_on`, else the settings'. A
        job that has succeeded with the same spec, data and versions is returned, unless `force` is given.

        Raises:
            InvalidSpec: it cannot be run; every fault of it is named.
            IdempotencyConflict: the key belongs to a job with another spec.
            BrokerUnavailable: with `require_broker`; the job is stored all the same.

        """
        _require("name", name, str, NoneType)
        _require("priority", priority, int)
        resolved = _resolved(spec, fields, recipe, self._settings)
        new = NewJob(
            spec=resolved.spec,
            user=user or submitting.user(self._settings),
            name=name,
            tags=tuple(dict.fromkeys(_all(tags))),
            priority=priority,
            idempotency_key=idempotency_key,
            after=submitting.dependencies(self._store, map(_text, _all(after))),
            not_before=_moment(not_before),
            demand=resources.parse(device=device, gpu_memory=gpu_memory, labels=_all(labels)),
            notify=submitting.telling(
                self._settings,
                None if notify is None else _all(notify),
                None if notify_on is None else _all(notify_on),
            ),
            provenance=provenance.here(self._settings, resolved.origins),
        )
        return submitting.submit(self._store, new, ring=self._ring, require_broker=require_broker, reuse=not force).job

    def get(self, job: str | Job) -> Job:
        """Return the job as it is now."""
        return self._store.find(_text(job))

    def list(
        self,
        *,
        states: Iterable[JobState | str] = (),
        tags: Iterable[str] = (),
        user: str | None = None,
        limit: int | None = None,
    ) -> tuple[Job, ...]:
        """Return jobs, the newest first: all, or those of some states that have all these tags and that user."""
        which = JobFilter(states=tuple(map(_state, _all(states))), tags=_all(tags), user=user, limit=limit)
        return tuple(self._store.jobs(which))

    def wait(self, job: str | Job, *, timeout: float | None = None, check: bool = True) -> Job:
        """Return the job once it has ended; with `check` only where it has succeeded.

        Raises:
            TimedOut: it has not ended after `timeout` seconds; it goes on.
            JobFailed: it has failed, and `check` is set.
            JobCancelled: it was cancelled, and `check` is set.

        """
        (ended,) = follow.wait(self._store, [self.get(job).id], timeout=timeout)
        if check:
            follow.verdict([ended])
        return ended

    def metrics(self, job: str | Job) -> Metrics:
        """Return loss, accuracy and time of every epoch that is closed; `.to_dataframe()` makes a table of them."""
        return Metrics(self._store.epochs(self.get(job).id))

    def evaluation(self, job: str | Job) -> Evaluation | None:
        """Return what the best checkpoint does on the validation pictures; None before the end of a training.

        Of a job that was extended it is that of the training before, until the new one has been evaluated.
        """
        return self._store.evaluation(self.get(job).id)

    def logs(self, job: str | Job) -> str:
        """Return the output of all attempts of the job, in order."""
        return "\n".join(follow.lines(self._store, self.get(job).id))

    def cancel(self, job: str | Job) -> Job:
        """End a job for good: at once where it waits, within seconds where it runs; raises IllegalMove."""
        return control.cancel(self._settings, self._store, _text(job))

    def pause(self, job: str | Job) -> Job:
        """Set a job aside: at once where it waits, after its next step where it runs; raises IllegalMove."""
        return control.pause(self._settings, self._store, _text(job))

    def resume(self, job: str | Job) -> Job:
        """Let a paused job go on where it stands; raises IllegalMove."""
        return control.resume(self._settings, self._store, _text(job))[0]

    def retry(self, job: str | Job, *, from_start: bool = False) -> Job:
        """Queue a failed or cancelled job again, from its last checkpoint or `from_start`; raises IllegalMove."""
        return control.retry(self._settings, self._store, _text(job), from_start=from_start)[0]

    def extend(self, job: str | Job, *, epochs: int) -> Job:
        """Let a job that has ended go on to so many epochs in all; raises IllegalMove, InvalidSpec."""
        return control.extend(self._settings, self._store, _text(job), epochs=epochs)[0]

    def predict(
        self, job: str | Job, images: Iterable[str | PathLike[str]], *, top: int = 1
    ) -> tuple[prediction.Prediction, ...]:
        """Return what the best checkpoint of the job makes of each picture, in their order, folders opened up.

        A picture that cannot be read has an `error` in place of guesses. Needs torch, in a process of its own.

        Raises:
            NotFound: there is no such picture, or the job has no checkpoint on this host.
            OrchError: torch is missing, or the process failed.

        """
        paths = [Path(image) for image in _all(images)]
        return tuple(prediction.predict(self._settings, self._store, _text(job), paths, top=top))

    def bundle(
        self, job: str | Job, path: str | PathLike[str], *, with_weights: bool = False, force: bool = False
    ) -> Path:
        """Write what it takes to train a job that has succeeded again elsewhere into a file, and return its path.

        `reproduce` takes it. An existing file is replaced with `force` only.

        Raises:
            IllegalMove: the job has not succeeded.
            NotFound: its checkpoints are not on this host.
            UsageError: the file exists, or cannot lie there.

        """
        made = bundling.bundle(
            self._settings, self._store, _text(job), output=Path(path), with_weights=with_weights, force=force
        )
        return made.path

    def reproduce(
        self,
        path: str | PathLike[str],
        *,
        data: str | None = None,
        timeout: float | None = None,
        tolerance: float | None = None,
    ) -> reproduction.Verdict:
        """Train the job in a bundle here, and return what that comes to: `outcome` says identical, and so on.

        `data` names where the same data is here; a job whose data has another digest is cancelled, and its outcome is
        not-run, as is that of one that fails. `tolerance` is how far accuracies may be apart that count as equal.

        Raises:
            NotFound: there is no such file, or what the job began with is not here.
            UsageError: its data came from a URL with a secret, and `data` is None.
            InvalidSpec: this orch cannot run it.
            OrchError: the file is not whole.
            TimedOut: the job has not ended after `timeout` seconds; it goes on.

        """
        wanted = reproduction.plan(self._settings, self._store, Path(path), data=data)
        job = reproduction.begin(self._settings, self._store, wanted)
        for _ in reproduction.until_ended(self._settings, self._store, wanted, job.id, timeout=timeout):
            pass
        return reproduction.verdict(self._settings, self._store, wanted.manifest, job.id, tolerance=tolerance)

    def backup(self, path: str | PathLike[str], *, with_artifacts: bool = True, force: bool = False) -> backing.Written:
        """Write the database and the checkpoints of this installation into a file; workers may run.

        What is not in it stands in `manifest.left_out` of what is returned, damaged checkpoints among it.

        Raises:
            UsageError: the file exists, and not `force`; or it cannot lie there.
            OrchError: a file cannot be read, or the disk has no room or does not take it; nothing is left of it.

        """
        return backing.backup(self._settings, Path(path), hear=_unheard, with_artifacts=with_artifacts, force=force)

    def restore(self, path: str | PathLike[str]) -> restoring.Restored:
        """Put a backup into this installation, which has no jobs and no worker that lives.

        Raises:
            OrchError: the file is not whole, or the disk has no room, or files are in the way.
            IllegalMove: the installation has jobs, or a node runs.
            SchemaMismatch: the backup is of a newer orch.

        """
        return restoring.restore(self._settings, Path(path), hear=_unheard)


def _unheard(_: object) -> None:
    """Take in how far something is, for nobody."""


def _text(job: str | Job) -> str:
    _require("job", job, Job, str)
    return job.id if isinstance(job, Job) else job


def _all(given: Iterable[_One]) -> tuple[_One, ...]:
    """Return things as a tuple, also where one was given alone: a text is one, not its letters."""
    return (cast("_One", given),) if isinstance(given, str | PathLike | Job) else tuple(given)


def _require(name: str, value: object, *kinds: type) -> None:
    """Raise InvalidSpec where an argument is of another kind: notebooks have no type checker."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise errors.InvalidSpec(f"{name} = {masking.value(value)}: it is no {wanted}")


def _resolved(
    spec: JobSpec | None, fields: Mapping[str, Any], recipe: str | None, settings: config.Settings
) -> jobfile.Resolved:
    if spec is None:
        return jobfile.resolve(flags=fields, recipe=recipe, settings=settings)
    _require("spec", spec, JobSpec)
    if fields or recipe:
        raise errors.UsageError(
            "Give a whole spec, or fields of one, not both.",
            hint="`spec.model_copy(update={…})` changes fields of a spec.",
        )
    return jobfile.Resolved(spec=jobfile.placed(spec), origins={})


def _state(text: JobState | str) -> JobState:
    try:
        return JobState(text)
    except ValueError:
        raise errors.UsageError(f"{text!a} is no state.", why=f"Known are {', '.join(JobState)}.") from None


def _moment(moment: datetime | None) -> datetime | None:
    """Return a moment with its zone: one without is the local time, as on the command line."""
    return moment.astimezone() if moment is not None and moment.tzinfo is None else moment
