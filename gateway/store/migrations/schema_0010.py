"""Who is told of nothing but changes to the security of their account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A column of `users`."""
    op.add_column("users", sa.Column("quiet", sa.Boolean, nullable=False, server_default=sa.false()))
