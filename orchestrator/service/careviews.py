"""What `--json` prints of an installation's health, settings and schema."""

from typing import Any

from pydantic import Field

from orchestrator.service import views


class CheckPart(views.Part):
    """One finding of the doctor."""

    name: str
    level: str = Field(description="ok, warn or fail")
    found: str
    fix: str | None


class DoctorPayload(views.Payload):
    """What the doctor found."""

    checks: tuple[CheckPart, ...]


class FindingPart(views.Part):
    """One promise that is broken."""

    kind: str = Field(description="which promise; the kinds are those of `core/findings.py`")
    job: str | None = Field(description="id of the job that it is about")
    sentence: str


class AuditPayload(views.Payload):
    """What the audit found: nothing where every promise holds."""

    findings: tuple[FindingPart, ...]


class GarbagePart(views.Part):
    """Something on this host that nobody needs any more."""

    kind: str = Field(
        description="deleted job, ended attempts, orphan, partial download, bundled weights, decoded pictures, "
        "compiled code, data set"
    )
    path: str
    bytes: int
    job: str | None
    removable: bool = Field(description="false for what is left alone")
    removed: bool
    why: str = Field(description="why nobody needs it, or why it is still there")


class GarbagePayload(views.Payload):
    """What nobody on this host needs any more."""

    dry_run: bool
    bytes: int = Field(description="that were freed, or would be")
    items: tuple[GarbagePart, ...]


class SettingPart(views.Part):
    """One setting in force."""

    name: str
    value: Any
    origin: str
    variable: str
    description: str


class SettingsPayload(views.Payload):
    """The settings in force."""

    settings: tuple[SettingPart, ...]


class SchemaPayload(views.Payload):
    """The schema that was found, before and after where it was upgraded, and the one that this orch wants."""

    found: str | None
    wanted: str | None
