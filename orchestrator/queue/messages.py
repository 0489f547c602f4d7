"""Names on the wire: a task and a queue for each stage.

A message is a doorbell: it carries nothing, and says only that something waits at a stage. Nobody reads more of it
than which queue it lies in.
"""

import json
import uuid

from orchestrator.core.states import Stage

TASKS: dict[Stage, str] = {
    Stage.DOWNLOAD: "orch.download.v1",
    Stage.TRAIN: "orch.train.v1",
    Stage.EVALUATE: "orch.evaluate.v1",
}

QUEUES: dict[Stage, str] = {
    Stage.DOWNLOAD: "orch-download",
    Stage.TRAIN: "orch-train",
    Stage.EVALUATE: "orch-evaluate",
}

_TASKS = {queue: TASKS[stage] for stage, queue in QUEUES.items()}


def doorbell(queue: str) -> str:
    """Return a message, as Celery's protocol has it, that calls the queue's task with nothing."""
    name = str(uuid.uuid4())
    return json.dumps(
        {
            "body": "[[], {}, {}]",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": _TASKS[queue], "id": name},
            "properties": {"delivery_tag": name, "delivery_info": {"exchange": "", "routing_key": queue}},
        }
    )
