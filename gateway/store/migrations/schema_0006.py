"""Messages that hold a code, and what became of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
compatible = 1
touches = ("outbox",)


def upgrade() -> None:
    """Columns of `outbox`."""
    op.add_column("outbox", sa.Column("sealed", sa.LargeBinary))
    op.add_column("outbox", sa.Column("reference", sa.String, nullable=False, server_default=sa.text("''")))
    op.add_column("outbox", sa.Column("delivery", sa.String, nullable=False, server_default=sa.text("''")))
    op.create_index("outbox_known_as", "outbox", ["via", "reference"])
