"""Addresses that nothing is sent to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
compatible = 1
touches = ()


def upgrade() -> None:
    """A table."""
    op.create_table(
        "suppressed",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("target", sa.String, primary_key=True),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
