"""The database: rows stay in here, frozen domain objects leave."""
