"""The Celery tasks: one call each. What a doorbell carries is not read; the database says what there is to do."""

from collections.abc import Callable

from celery import Celery

from orchestrator.core import states
from orchestrator.queue import messages


def register(app: Celery, serve: Callable[[], None], stages: tuple[states.Stage, ...]) -> None:
    """Make the app answer the doorbells of `stages` with `serve`."""
    for stage in stages:

        def answer(*_: object, **__: object) -> None:
            serve()

        # Shared tasks would leak into every other app of the process.
        app.task(name=messages.TASKS[stage], shared=False)(answer)
