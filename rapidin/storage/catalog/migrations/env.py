"""Alembic runs this file. It migrates over the connection and in the transaction that the caller opened."""

from __future__ import annotations

from alembic import context

from rapidin.storage.catalog.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite also rolls back table definitions, so a killed migration leaves the old format.
    transactional_ddl=True,
)
context.run_migrations()
