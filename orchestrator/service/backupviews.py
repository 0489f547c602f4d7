"""What `--json` prints of backups."""

from datetime import datetime
from pathlib import Path

from pydantic import Field

from orchestrator.service import backup as backups
from orchestrator.service import restore as restores
from orchestrator.service import views


class LeftOutPart(views.Part):
    """A checkpoint that a row refers to and that is not in the backup."""

    path: str
    why: str
    damaged: bool = Field(description="false where it was gone from the disk")


class InsidePart(views.Part):
    """What a backup holds."""

    path: Path
    bytes: int = Field(description="size of the file")
    made_at: datetime
    orch: str = Field(description="version that wrote it")
    revision: str = Field(description="version of its schema")
    database: str = Field(description="sqlite or postgresql: either can be restored into both")
    jobs: dict[str, int] = Field(description="by their state")
    rows: int
    artifact_root: str | None = Field(description="id of the folder that its files were in; null where it has none")
    files: int = Field(description="checkpoints and logs")
    file_bytes: int
    left_out: tuple[LeftOutPart, ...]
    elsewhere: int = Field(description="checkpoints that lie in other artifact folders, and are not in it")


class BackupPayload(views.Payload):
    """A backup that was written."""

    backup: InsidePart


class RestorePayload(views.Payload):
    """A backup that was restored, or with `--dry-run` could be."""

    dry_run: bool
    backup: InsidePart
    database: str | None = Field(description="where it is now; null with --dry-run, like all that follows")
    artifacts: Path | None
    artifact_root: str | None = Field(description="id of the folder that its files are in now")
    jobs: dict[str, int] | None = Field(description="by their state now")
    requeued: tuple[str, ...] | None = Field(description="jobs that ran when the backup was made")
    forgotten: tuple[str, ...] | None = Field(description="jobs with checkpoints that are not in the backup")


def inside(path: Path, size: int, manifest: backups.Manifest) -> InsidePart:
    """Return what a backup holds."""
    return InsidePart(
        path=path,
        bytes=size,
        made_at=manifest.made_at,
        orch=manifest.orch,
        revision=manifest.revision,
        database=manifest.database,
        jobs=manifest.states,
        rows=manifest.rows,
        artifact_root=manifest.root,
        files=manifest.files,
        file_bytes=manifest.file_bytes,
        left_out=tuple(LeftOutPart.model_validate(one) for one in manifest.left_out),
        elsewhere=manifest.elsewhere,
    )


def looked(found: restores.Inside) -> RestorePayload:
    """Return the payload of a look into a backup."""
    nothing = dict.fromkeys(("database", "artifacts", "artifact_root", "jobs", "requeued", "forgotten"))
    return RestorePayload(dry_run=True, backup=inside(found.path, found.bytes, found.manifest), **nothing)


def restored(done: restores.Restored) -> RestorePayload:
    """Return the payload of a backup that was restored."""
    return RestorePayload(
        dry_run=False,
        backup=inside(done.inside.path, done.inside.bytes, done.inside.manifest),
        database=done.database,
        artifacts=done.artifacts,
        artifact_root=done.root,
        jobs=dict(done.states),
        requeued=done.requeued,
        forgotten=done.forgotten,
    )
