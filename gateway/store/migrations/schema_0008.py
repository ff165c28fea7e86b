"""How often codes were sent, to users and to addresses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
compatible = 1
touches = ()


def upgrade() -> None:
    """A table."""
    op.create_table(
        "code_sends",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("whose", sa.String, primary_key=True),
        sa.Column("sent", sa.JSON, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_index("code_sends_until", "code_sends", ["expires_at"])
