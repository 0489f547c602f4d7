"""What is sent has somebody who hears it."""

from celery import Celery

from orchestrator import config
from orchestrator.core import states
from orchestrator.queue import app as queue_app
from orchestrator.queue import messages
from worker import protocol, tasks


def _worker(tmp_home: config.Settings, heard: list[str]) -> Celery:
    app = queue_app.create(tmp_home)
    tasks.register(app, lambda: heard.append("doorbell"), tuple(states.Stage))
    return app


def test_the_worker_registers_every_name_that_is_sent(settings: config.Settings) -> None:
    assert set(messages.TASKS.values()) <= set(_worker(settings, []).tasks)


def test_a_task_answers_whatever_it_carries_and_reads_none_of_it(settings: config.Settings) -> None:
    heard: list[str] = []
    app = _worker(settings, heard)
    for name in messages.TASKS.values():
        app.tasks[name]("a forged job id", spec={"network": "evil"})
    assert heard == ["doorbell"] * len(messages.TASKS)


def test_tasks_do_not_leak_into_other_apps(settings: config.Settings) -> None:
    _worker(settings, [])
    other = queue_app.create(settings)
    assert not set(messages.TASKS.values()) & set(other.tasks)


def test_every_stage_has_a_task_a_queue_and_an_entry_point() -> None:
    stages = set(states.Stage)
    assert stages == set(messages.TASKS) == set(messages.QUEUES) == set(protocol.ENTRY_POINTS)
    assert "celery" not in messages.QUEUES.values()
    assert len(set(messages.QUEUES.values())) == len(stages)
