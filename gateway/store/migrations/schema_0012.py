"""The language that somebody is written to in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A column with a default."""
    op.add_column("users", sa.Column("language", sa.String, nullable=False, server_default=sa.text("''")))
