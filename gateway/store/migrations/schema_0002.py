"""Generations of a user's sessions, and how long a session has rested at most."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
compatible = 1
touches = ("users", "sessions")


def upgrade() -> None:
    """Two columns, each with a default."""
    op.add_column("users", sa.Column("generation", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("sessions", sa.Column("rested", sa.Float, nullable=False, server_default=sa.text("0")))
