"""To whom a message went, once it has gone: sealed, and as a MAC. Rows from before are sealed by the first gateway."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
compatible = 1
touches = ("outbox",)


def upgrade() -> None:
    """Columns of `outbox`."""
    op.add_column("outbox", sa.Column("whose", sa.String, nullable=False, server_default=sa.text("''")))
    op.add_column("outbox", sa.Column("address", sa.LargeBinary))
    op.create_index("outbox_whose", "outbox", ["whose", "kind", "state"])
