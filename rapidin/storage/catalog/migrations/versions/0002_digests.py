"""Format 2: digests of what searches and filters read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

from rapidin.storage.catalog import digests

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and compute the digests of what is there."""
    op.create_table(
        "digests",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_digests")),
    )
    with Session(op.get_bind()) as session:
        digests.fill(session)
        session.flush()
