"""Everything about one job for people."""

from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from orchestrator import config
from orchestrator.cli import confusion, jobpipe, jobrows, render, words
from orchestrator.core import masking, weights
from orchestrator.core.jobs import Checkpoint, EpochMetric, Evaluation, Job
from orchestrator.core.specs import JobSpec
from orchestrator.core.states import JobState
from orchestrator.service import query

#: Epochs shown on a terminal: the first ones are less telling than the last.
_EPOCHS = 12

#: Columns that precision and recall take beside a confusion matrix, with the gaps behind them.
_SCORES = 19


def show(report: query.Report, settings: config.Settings) -> None:
    """Print everything about a job."""
    console, job = render.console(), report.job
    console.print(render.pairs(_summary(report, settings)))
    if report.epochs:
        _heading(console, "Epochs")
        shown = report.epochs[-2 * _EPOCHS :]
        console.print(render.grid(_wide_epochs(report.epochs), _by_epoch(shown), width=console.width))
    if report.evaluation:
        best = report.evaluation.is_of_best(report.checkpoints)
        of = words.evaluated(report.evaluation.checkpoint_step, best=best)
        evaluation(report.evaluation, f"Evaluation of {of}")
    if report.checkpoints:
        _heading(console, "Checkpoints")
        for checkpoint in report.checkpoints:
            _checkpoint(console, checkpoint, settings)
    if len(report.attempts) > 1:
        _heading(console, "Attempts")
        render.table(jobpipe.attempt_columns(), report.attempts, to=render.Mode.TERMINAL)
    console.print()
    render.following(query.useful(job))


def _summary(report: query.Report, settings: config.Settings) -> Iterator[tuple[str, str | Text]]:
    job, now = report.job, datetime.now(UTC)
    silent = query.silent_ids(report.workers, settings)
    yield "job", f"{job.id}  {job.name}" if job.name else job.id
    yield "state", render.state(render.addressed(_standing(report, now, silent)), of=job.state)
    yield from _trouble(report, silent)
    if report.eta is not None and job.worker not in silent:
        yield "stage ends in", f"about {words.duration(report.eta)} at {words.rate(job)}"
    if report.ends is not None and job.worker not in silent:
        yield "training ends in", words.between(report.ends.low, report.ends.high)
    if job.best_accuracy is not None:
        yield "best", f"{words.percent(job.best_accuracy)} validation accuracy"
    if used := words.usage(report.epochs):
        yield "uses" if job.state is JobState.RUNNING else "used", used
    yield "recipe", _recipe(job)
    yield "data", _data(report)
    if job.note:
        yield "note", job.note
    yield from _queued(job)
    if job.attempt:
        yield "attempt", _attempt(job)
    yield "submitted", f"{words.moment(job.submitted_at)} by {job.user}"
    if job.started_at:
        yield "started", words.moment(job.started_at)
    if job.finished_at:
        yield "finished", f"{words.moment(job.finished_at)} after {words.duration(jobrows.took(job, now))}"


def _queued(job: Job) -> Iterator[tuple[str, str]]:
    priority = [f"priority {job.priority}"] if job.priority else []
    preemptible = ["preemptible"] if job.spec.preemptible else []
    with_ = [*(f"tag {tag}" for tag in job.tags), *priority, *preemptible]
    if with_:
        yield "queued with", ", ".join(with_)
    if demands := job.demand.said():
        yield "demands", ", ".join(demands)


def _trouble(report: query.Report, silent: Container[str]) -> Iterator[tuple[str, str | Text]]:
    job = report.job
    if job.reason:
        yield "failed with", Text(str(job.reason), style="red")
    if job.error:
        yield "why", job.error
    if job.hint:
        yield "try", render.addressed(job.hint)
    if query.stranded(job, report.workers, silent):
        yield "why", f"they lie in the artifact folder {job.artifact_root}, last used on {query.last_host(report)}"
        yield "try", render.addressed(query.WAY_OUT.format(id=job.id))
    for worker, why in query.unfit(job, report.workers).items():
        yield "why", f"{worker} {why}"


def _standing(report: query.Report, now: datetime, silent: Container[str]) -> str:
    job = report.job
    if job.state is not JobState.QUEUED:
        early = f"ended early {report.stopped_early}" if report.stopped_early else ""
        doing = query.doing(job) + (f" to {job.yields_to}" if job.yields_to else "")
        known = ", ".join(part for part in (doing, words.progress(job), early) if part)
        holder = next((worker for worker in report.workers if worker.id == job.worker), None)
        if holder is None or holder.id not in silent:
            return known
        return f"{known}: its worker has been silent for {words.duration(holder.silence)}"
    if before := query.blocked(job, report.needs, now=now):
        return f"queued, {before}"
    if nobody := words.nobody(report.workers, silent):
        return f"queued for {job.stage}: {nobody}, `orch up -d` starts one here"
    return f"queued for {job.stage}{_place(report, silent)}"


def _place(report: query.Report, silent: Container[str]) -> str:
    if query.stranded(report.job, report.workers, silent):
        return ": no running worker has its checkpoints"
    if query.unfit(report.job, report.workers):
        return ": no running worker can ever run it"
    return f", {words.place(report.ahead or 0)}"


def _recipe(job: Job) -> str:
    spec = job.spec
    batch = f"{spec.accumulate} x {spec.batch_size}" if spec.accumulate > 1 else spec.batch_size
    return (
        f"{spec.network}, {spec.image_size} px, batch {batch}, {words.plural(spec.epochs, 'epoch')}, "
        f"{spec.optimizer} lr {spec.lr:g}, seed {spec.seed}{_start(spec)}"
    )


def _start(spec: JobSpec) -> str:
    """Return what the network starts from and what of it learns, where that is not the usual."""
    if spec.weights is None:
        return ""
    source = spec.weights.replace(weights.JOB, "job ", 1) if weights.job(spec.weights) else spec.weights
    part = {"all": "", "head": ", head alone", "last-block": ", last block alone"}[spec.train]
    first = f", head first for {words.plural(spec.head_epochs, 'epoch')}" if spec.head_epochs else ""
    return f", from {source}{first}{part}"


def _data(report: query.Report) -> str:
    source = masking.data(report.job.spec.data)
    if report.dataset is None:
        return source
    counts = ", ".join(f"{count} {split}" for split, count in report.dataset.counts.items())
    return f"{source}: {len(report.dataset.classes)} classes, {counts}"


def _attempt(job: Job) -> str:
    run = f"run {job.run}, " if job.run > 1 else ""
    retries = f", {job.retries} {'retry' if job.retries == 1 else 'retries'} since the last progress"
    held = f", on {job.worker}" if job.worker else ""
    return f"{run}{job.attempt}{retries if job.retries else ''}{held}"


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(title, style="bold underline")


def _by_epoch(epochs: Iterable[EpochMetric]) -> list[int]:
    return sorted({metric.epoch for metric in epochs})


def _wide_epochs(epochs: Iterable[EpochMetric]) -> tuple[render.Column[int], ...]:
    rows: dict[tuple[int, str], EpochMetric] = {(metric.epoch, metric.split): metric for metric in epochs}
    best = max((metric.accuracy for metric in rows.values() if metric.split == "val"), default=None)

    def value(split: str, name: str, form: str) -> render.Column[int]:
        def shown(epoch: int) -> str | Text:
            metric = rows.get((epoch, split))
            if metric is None:
                return ""
            text = words.percent(metric.accuracy) if name == "accuracy" else format(getattr(metric, name), form)
            is_best = split == "val" and name == "accuracy" and metric.accuracy == best
            return Text(f"{text} *", style="green") if is_best else f"{text}  "

        return render.Column(title=f"{split.upper()} {name.upper()}", value=shown, shown=shown, right=True)

    def seconds(epoch: int) -> float:
        return sum(metric.seconds for (number, _), metric in rows.items() if number == epoch)

    return (
        render.Column(title="EPOCH", value=lambda epoch: epoch, right=True),
        value("train", "loss", ".4f"),
        value("train", "accuracy", ""),
        value("val", "loss", ".4f"),
        value("val", "accuracy", ""),
        render.Column(title="TIME", value=seconds, shown=lambda epoch: words.duration(seconds(epoch)), right=True),
    )


def _checkpoint(console: Console, checkpoint: Checkpoint, settings: config.Settings) -> None:
    marks = " and ".join(name for name in ("best", "last") if getattr(checkpoint, name)) or "kept"
    accuracy = f", {words.percent(checkpoint.accuracy)}" if checkpoint.accuracy is not None else ""
    said = f"{marks}: step {checkpoint.step}, epoch {checkpoint.epoch}{accuracy}, {words.size(checkpoint.bytes)}"
    console.print(said)
    console.print(f"  {query.checkpoint_file(settings, checkpoint)}", soft_wrap=True)
    console.print(f"  sha256 {checkpoint.sha256}", style="dim", soft_wrap=True)


def evaluation(found: Evaluation, title: str) -> None:
    """Print what a checkpoint does on a split, under a title."""
    console = render.console()
    _heading(console, render.clean(title))
    console.print(
        f"accuracy {words.percent(found.accuracy)}, loss {found.loss:.4f}, {found.images} images, "
        f"step {found.checkpoint_step}"
    )
    numbers = range(len(found.classes))
    columns: list[render.Column[int]] = [
        render.Column(title="TRUTH", value=lambda number: found.classes[number]),
        render.Column(
            title="PRECISION",
            value=lambda number: found.precision[number],
            shown=lambda number: words.percent(found.precision[number]),
            right=True,
        ),
        render.Column(
            title="RECALL",
            value=lambda number: found.recall[number],
            shown=lambda number: words.percent(found.recall[number]),
            right=True,
        ),
    ]
    has_room = confusion.matrix_width(found) + _SCORES <= console.width
    if has_room:
        columns += [_predicted(found, number) for number in numbers]
    console.print(render.grid(columns, numbers, width=console.width))
    if not has_room:
        render.talk("What is taken for what has no room here: a pipe has every cell.")


def _predicted(evaluation: Evaluation, column: int) -> render.Column[int]:
    def shown(row: int) -> Text:
        return Text(str(evaluation.confusion[row][column]), style="bold" if row == column else "")

    return render.Column(
        title=f"→ {evaluation.classes[column]}",
        value=lambda row: evaluation.confusion[row][column],
        shown=shown,
        right=True,
    )
