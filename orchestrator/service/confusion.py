"""How well the checkpoint of a job that was evaluated last tells the classes apart."""

from dataclasses import dataclass
from statistics import fmean

from orchestrator import errors
from orchestrator.core.jobs import Evaluation, Job
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How well one class is told from the others."""

    name: str
    precision: float  #: share of true ones among its predictions; 0 where nothing was predicted as it
    recall: float  #: share of its pictures that were found; 0 where it has none
    f1: float  #: harmonic mean of the two
    support: int  #: its pictures


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Pictures of one class that were taken for another."""

    truth: str
    predicted: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The validation split as the checkpoint sees it that was best when its training had ended."""

    job: Job
    evaluation: Evaluation
    of_best: bool  #: whether it is of the one that is the best now
    scores: tuple[ClassScore, ...]
    average: ClassScore  #: of the classes, each counting once

    @property
    def mistakes(self) -> list[Mistake]:
        """What is taken for what, the most frequent first."""
        classes = self.evaluation.classes
        cells = [
            Mistake(truth=classes[row], predicted=classes[column], count=count)
            for row, counts in enumerate(self.evaluation.confusion)
            for column, count in enumerate(counts)
            if row != column and count
        ]
        return sorted(cells, key=lambda cell: -cell.count)


def confusion(store: Store, text: str) -> Confusion:
    """Return the confusion matrix of the job that `text` means, and what follows from it.

    Raises:
        NotFound: no such job, or it has not been evaluated.

    """
    job = store.find(text)
    evaluation = store.evaluation(job.id)
    if evaluation is None:
        raise errors.NotFound(
            f"Job {job.id} has not been evaluated.",
            why="A job is evaluated when its training has ended.",
            hint=f"`orch status {job.id}` says how far it is.",
        )
    scores = tuple(_score(evaluation, number) for number in range(len(evaluation.classes)))
    average = ClassScore(
        name="average",
        precision=fmean(score.precision for score in scores),
        recall=fmean(score.recall for score in scores),
        f1=fmean(score.f1 for score in scores),
        support=sum(score.support for score in scores),
    )
    of_best = evaluation.is_of_best(store.checkpoints(job.id))
    return Confusion(job=job, evaluation=evaluation, of_best=of_best, scores=scores, average=average)


def _score(evaluation: Evaluation, number: int) -> ClassScore:
    precision, recall = evaluation.precision[number], evaluation.recall[number]
    total = precision + recall
    return ClassScore(
        name=evaluation.classes[number],
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / total if total else 0.0,
        support=sum(evaluation.confusion[number]),
    )
