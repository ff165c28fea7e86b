"""Browsers that people trust."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A table of its own."""
    op.create_table(
        "trusted_devices",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("series", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("spent", sa.LargeBinary),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("spent_at", sa.Float),
        sa.Column("spent_by", sa.LargeBinary),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("sessions", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    )
    op.create_index("trusted_devices_of", "trusted_devices", ["tenant", "subject", "created_at"])
    op.create_index("trusted_devices_until", "trusted_devices", ["expires_at"])
