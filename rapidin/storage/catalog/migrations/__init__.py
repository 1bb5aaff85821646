"""Alembic migrations of ``store.db``, run by `rapidin.storage.catalog.database` without an ``alembic.ini``."""
