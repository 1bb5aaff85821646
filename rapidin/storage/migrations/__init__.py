"""Alembic migrations of ``store.db``, run by `rapidin.storage.database` without an ``alembic.ini``."""
