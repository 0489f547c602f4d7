"""Where jobs come from, in SQL: apart from their rows, which are read far more often than a megabyte of differences."""

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.engine import Connection

from orchestrator.core import provenance
from orchestrator.store import jobmodels, rows


def add(connection: Connection, job_id: str, known: provenance.Provenance) -> None:
    """Store where a new job comes from, where that is known."""
    if known == provenance.UNKNOWN:
        return
    said = asdict(known.source or provenance.Source())
    values = {"job_id": job_id, "origins": dict(known.origins), "revision": said.pop("commit"), **said}
    connection.execute(jobmodels.sources.insert().values(values))


def of(connection: Connection, job_id: str) -> provenance.Provenance:
    """Return where a job comes from: of one that an earlier orch has stored nothing is known."""
    row = connection.execute(select(jobmodels.sources).where(jobmodels.sources.c.job_id == job_id)).first()
    return rows.source(row) if row else provenance.UNKNOWN
