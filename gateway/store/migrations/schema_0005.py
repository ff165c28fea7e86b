"""Who must have a second factor, and since when they know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
compatible = 1
touches = ("users",)


def upgrade() -> None:
    """A column, and a table."""
    op.add_column("users", sa.Column("mfa_required_from", sa.Float))
    op.create_table(
        "demanded",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("demand", sa.String, primary_key=True),
        sa.Column("since", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    )
