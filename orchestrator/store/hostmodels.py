"""The tables of hosts: workers, and the data sets that lie there."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
)

from orchestrator.core.states import WorkerState, WorkerWish
from orchestrator.store import columns


class WorkerColumns(TypedColumns):
    """Columns of `workers`."""

    id: Named[str] = Column(Text, primary_key=True, comment="the worker's name")
    host: Named[str] = Column(Text, comment="name of its host")
    boot_id: Named[str] = Column(Text, comment="boot of the host, as the kernel has it")
    pid_namespace: Named[str] = Column(Text, comment="inode of the namespace that the pid is of")
    pid: Named[int] = Column(BigInteger, comment="process id")
    pid_started: Named[float] = Column(Double, comment="start time of the process, as the kernel has it")
    state: Named[WorkerState] = Column(columns.choice(WorkerState, "state"), comment="where the worker stands")
    devices: Named[list[str]] = Column(JSON, comment="one entry a slot")
    versions: Named[dict[str, str]] = Column(JSON, comment="of orch, Python, torch, …")
    artifact_root: Named[str | None] = Column(Text, comment="id of the root that it reaches")
    started_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it started")
    beat: Named[int] = Column(Integer, comment="the worker lives as long as this counter moves")
    beat_at: Named[datetime] = Column(columns.UtcDateTime, comment="its last beat")
    ended_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when it stopped or was found lost")
    wish: Named[WorkerWish] = Column(
        columns.choice(WorkerWish, "wish"), server_default="run", comment="what a person wants of it"
    )
    limits: Named[dict[str, dict[str, int]] | None] = Column(
        JSON(none_as_null=True), comment="trainings at once, by user and tag"
    )
    slots: Named[list[dict[str, Any]] | None] = Column(
        JSON(none_as_null=True), comment="what each slot works on: id, kind, name and memory in bytes"
    )
    labels: Named[list[str] | None] = Column(JSON(none_as_null=True), comment="list of text")


workers = Table(
    "workers",
    columns.metadata,
    WorkerColumns,
    CheckConstraint("(state IN ('stopped', 'lost')) = (ended_at IS NOT NULL)", name="ended_has_end"),
    Index(None, "host"),
    comment="Nodes: one row for each start of a worker.",
)


class DatasetColumns(TypedColumns):
    """Columns of `datasets`."""

    hash: Named[str] = Column(String(80), primary_key=True, comment="content hash")
    source: Named[str] = Column(Text, comment="where it came from")
    classes: Named[list[str]] = Column(JSON, comment="names, in order of their numbers")
    counts: Named[dict[str, int]] = Column(JSON, comment="pictures per split")
    bytes: Named[int] = Column(BigInteger, comment="size on disk")
    path: Named[str] = Column(Text, comment="folder on the host that recorded it last")
    created_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was recorded")


datasets = Table("datasets", columns.metadata, DatasetColumns, comment="Data sets by content.")


class CopyColumns(TypedColumns):
    """Columns of `copies`."""

    host: Named[str] = Column(Text, primary_key=True, comment="its name")
    hash: Named[str] = Column(String(80), primary_key=True, comment="content hash")
    source: Named[str] = Column(Text, comment="where jobs say that it is from, secrets masked")
    seen_at: Named[datetime] = Column(columns.UtcDateTime, comment="when a job had it there")


copies = Table("copies", columns.metadata, CopyColumns, comment="Which hosts have which data sets, as jobs have told.")
