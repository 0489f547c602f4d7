"""Names on the wire: a task and a queue for each stage.

A message is a doorbell: it carries nothing, and says only that something waits at a stage. Nobody reads more of it
than which queue it lies in.
"""

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
