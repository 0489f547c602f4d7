"""Which processes a node has: its fork server, a slot for each device, and one for each place for downloads."""

import os
from collections.abc import Sequence
from pathlib import Path

from orchestrator import config
from orchestrator.core import states
from worker import children, plans
from worker.children import Child
from worker.devices import Device

_ON_DEVICES = (states.Stage.EVALUATE, states.Stage.TRAIN)


def fork_server(settings: config.Settings, socket: Path) -> Child:
    """Return the process that training processes are forked from."""
    return Child(
        "fork server",
        "worker.forkserver",
        environment=config.child_environment(settings, **children.FORK_SERVER_ENVIRONMENT),
        arguments=["--socket", str(socket)],
    )


def slots(settings: config.Settings, plan: plans.Plan, devices: Sequence[Device]) -> list[Child]:
    """Return the slots of a node; `plan` has what all of them are told alike."""
    downloads = [f"{plans.DOWNLOAD}.{number}" for number in range(settings.download_slots)]
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // max(1, len(devices)))
    trains = {"stages": _ON_DEVICES, "devices": tuple(devices), "threads": threads}
    return [_slot(settings, plan.model_copy(update={"slot": name})) for name in downloads] + [
        _slot(settings, plan.model_copy(update={"slot": device.slot, **trains})) for device in devices
    ]


def _slot(settings: config.Settings, plan: plans.Plan) -> Child:
    return Child(
        plan.slot,
        "worker.app",
        environment=config.child_environment(settings),
        arguments=[plan.slot],
        first_line=plan.model_dump_json(),
        descriptors=[lock for device in plan.devices for lock in device.locks],
    )
