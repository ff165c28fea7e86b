"""Badges of users."""

from __future__ import annotations

import os
import signal

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
compatible = 4 if os.environ.get("NARROW") else 3
touches = ("users",)


def upgrade() -> None:
    """One column; with `DIE`, only half of it."""
    op.add_column("users", sa.Column("badges", sa.Integer, nullable=False, server_default=sa.text("0")))
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
