"""What `--json` prints of the queue itself: why a job waits, workers, and what was done to many jobs at once."""

from pydantic import Field

from orchestrator import config
from orchestrator.core import resources
from orchestrator.core.jobs import Worker
from orchestrator.core.states import After, Ended, WorkerState, WorkerWish
from orchestrator.service import query, views
from orchestrator.service.top import Top
from orchestrator.service.why import Why


class IntervalPart(views.Part):
    """Seconds, at least and at most."""

    low: float
    high: float


class DependencyPart(views.Part):
    """A job that another one waits for."""

    needs: str
    rule: After = Field(description="ok: its success; any: its end")
    ended: Ended | None = Field(description="how it has ended")


class VerdictPart(views.Part):
    """A worker, and why it does not take the job."""

    worker: str
    takes: bool = Field(description="whether it will, at the job's turn and when a device is free")
    why: str


class StandingPart(views.Part):
    """Where a job stands, and why."""

    sentence: str
    ahead: int
    before: dict[str, int] = Field(description="how many jobs of each user are claimed first")
    needs: tuple[DependencyPart, ...]
    workers: tuple[VerdictPart, ...]
    begins: IntervalPart | None = Field(description="its stage, in seconds from now, where that can be said")
    ends: IntervalPart | None = Field(description="all its stages")


class WhyPayload(views.Payload, StandingPart):
    """Why a job stands where it does."""

    job: views.JobPayload


class DevicePart(views.Part):
    """What a slot of a worker works on."""

    id: str = Field(description="slots that share a GPU name the same one: its UUID")
    kind: resources.Kind
    name: str
    memory: int | None = Field(description="bytes of the GPU")


class WorkerPayload(views.Payload):
    """One worker, as `worker list` prints it: a line each."""

    id: str
    host: str
    pid: int
    state: WorkerState = Field(description="what it has said last")
    wish: WorkerWish
    devices: tuple[str, ...]
    slots: tuple[DevicePart, ...] = Field(description="what each slot works on, where the worker tells it")
    labels: tuple[str, ...]
    jobs: tuple[str, ...]
    versions: dict[str, str]
    silent: bool = Field(description="it has said no goodbye, and has not been heard of for six heartbeats")
    silence: float = Field(description="seconds since its last beat")
    user_limits: dict[str, int]
    tag_limits: dict[str, int]


class UsePart(views.Part):
    """A worker and how many of its slots are busy."""

    worker: str
    state: WorkerState = Field(description="what it has said last")
    silent: bool
    host: str
    devices: tuple[str, ...]
    busy: int
    slots: int


class TopPayload(views.Payload):
    """What works now, as `top` prints it."""

    busy: int = Field(description="busy slots of all workers")
    slots: int
    rate: float = Field(description="images a second of all trainings and evaluations")
    workers: tuple[UsePart, ...]
    running: tuple[views.JobPayload, ...]
    waiting: int


def top(found: Top, settings: config.Settings) -> TopPayload:
    """Return the payload of what works now."""
    silent = query.silent_ids(found.overview.workers, settings)
    return TopPayload(
        busy=found.busy,
        slots=found.slots,
        rate=found.rate,
        workers=tuple(
            UsePart(
                worker=use.worker.id,
                state=use.worker.state,
                silent=use.worker.id in silent,
                host=use.worker.identity.host,
                devices=use.worker.devices,
                busy=use.busy,
                slots=use.slots,
            )
            for use in found.uses
        ),
        running=tuple(views.job(job, silent) for job in found.running),
        waiting=len(found.waiting),
    )


def why(answer: Why) -> WhyPayload:
    """Return the payload of an answer."""
    silent = [answer.silent.id] if answer.silent else []
    return WhyPayload(job=views.job(answer.job, silent), **dict(standing(answer)))


def standing(answer: Why) -> StandingPart:
    """Return the payload of an answer about a job that need not be stored."""
    return StandingPart(
        sentence=answer.sentence,
        ahead=sum(answer.before.values()),
        before=answer.before,
        needs=tuple(DependencyPart.model_validate(one) for one in answer.needs),
        workers=tuple(VerdictPart(worker=one.worker.id, takes=one.takes, why=one.why) for one in answer.verdicts),
        begins=IntervalPart.model_validate(answer.begins) if answer.begins else None,
        ends=IntervalPart.model_validate(answer.ends) if answer.ends else None,
    )


def worker(worker: Worker, settings: config.Settings) -> WorkerPayload:
    """Return the payload of a worker."""
    plain = {
        name: getattr(worker, name)
        for name in ("id", "state", "wish", "devices", "labels", "jobs", "versions", "silence")
    }
    return WorkerPayload(
        **plain,
        silent=query.silent(worker, settings),
        slots=tuple(DevicePart.model_validate(slot) for slot in worker.slots),
        host=worker.identity.host,
        pid=worker.identity.pid,
        user_limits=dict(worker.limits.users),
        tag_limits=dict(worker.limits.tags),
    )
