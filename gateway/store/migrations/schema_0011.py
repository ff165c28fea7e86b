"""Which second factor somebody wants to be asked for first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A column."""
    op.add_column("users", sa.Column("preferred_factor", sa.String, nullable=False, server_default=sa.text("''")))
