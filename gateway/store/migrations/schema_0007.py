"""Ways back in for whoever has lost every second factor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A table."""
    op.create_table(
        "recoveries",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True, unique=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("way", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("asked_by", sa.String, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("cancel", sa.String, nullable=False),
        sa.Column("link", sa.String),
        sa.Column("settled_at", sa.Float),
        sa.Column("settled_by", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    )
    op.create_index("recoveries_of", "recoveries", ["tenant", "subject", "asked_at"])
    op.create_index("recoveries_open", "recoveries", ["state", "due_at"])
