"""Run by Alembic: migrates over the connection, and inside the transaction, that it is handed."""

from __future__ import annotations

from alembic import context

from rapidin.storage.catalog.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite rolls table definitions back too, so that a killed migration leaves the old format.
    transactional_ddl=True,
)
context.run_migrations()
