"""All tables. Migrations make them; a test keeps both equal."""

from orchestrator.store import attemptmodels, columns, hostmodels, jobmodels

#: The modules that put their tables into `metadata` when they are imported.
GROUPS = (jobmodels, attemptmodels, hostmodels)

metadata = columns.metadata
