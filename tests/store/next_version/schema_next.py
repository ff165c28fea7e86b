"""Badges of users."""

from __future__ import annotations

import os
import signal

import sqlalchemy as sa
from alembic import op

from gateway.store import tables

revision = f"{tables.SCHEMA_VERSION:04}"
down_revision = f"{tables.SCHEMA_VERSION - 1:04}"
compatible = tables.SCHEMA_VERSION if os.environ.get("NARROW") else tables.SCHEMA_VERSION - 1
touches = ("users",)


def upgrade() -> None:
    """One column; with `DIE`, only half of it."""
    op.add_column("users", sa.Column("badges", sa.Integer, nullable=False, server_default=sa.text("0")))
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
