"""Format 3: which parts of a chat are its targets; null for every sample that is there already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; checksums of rows in which it is null do not change."""
    op.add_column("samples", sa.Column("target_spans", sa.Text(), nullable=True))
