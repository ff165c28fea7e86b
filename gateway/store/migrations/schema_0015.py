"""Which address of somebody was confirmed, and when. Nobody's is, to begin with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """Two columns of `users`."""
    op.add_column("users", sa.Column("email_confirmed", sa.String, nullable=False, server_default=sa.text("''")))
    op.add_column("users", sa.Column("email_confirmed_at", sa.Float))
