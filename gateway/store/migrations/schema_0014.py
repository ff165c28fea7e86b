"""Which mailbox takes nothing, however its address is spelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.suppressed_table import mark

revision = "0014"
down_revision = "0013"
compatible = 1
touches = ("suppressed",)


def upgrade() -> None:
    """A column of `suppressed`, also of the rows that are there."""
    op.add_column("suppressed", sa.Column("mailbox", sa.String, nullable=False, server_default=sa.text("''")))
    op.create_index("suppressed_mailbox", "suppressed", ["tenant", "channel", "mailbox"])
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT tenant, channel, target, why FROM suppressed")).all()
    marking = "UPDATE suppressed SET mailbox = :mailbox WHERE tenant = :tenant AND channel = :channel"
    marks = [
        {"tenant": row.tenant, "channel": row.channel, "target": row.target, "mailbox": mark(row.target, row.why)}
        for row in rows
    ]
    if marks:
        connection.execute(sa.text(marking + " AND target = :target"), marks)
