"""The tables as version 0.1 made them, on SQLite only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
compatible = 1
touches = ()

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _of_user() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "meta",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("number", _NUMBER, nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("groups", sa.JSON, nullable=False),
        sa.Column("password", sa.String, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant", "name"),
    )
    op.create_table(
        "sessions",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("last_seen_at", sa.Float, nullable=False),
        sa.Column("proofs", sa.JSON, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        _of_user(),
    )
    op.create_index("sessions_of", "sessions", ["tenant", "subject", "created_at"])
    op.create_table(
        "factors",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("last_step", sa.Integer, nullable=False),
        sa.Column("refused_step", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float),
        _of_user(),
    )
    op.create_index("factors_of", "factors", ["tenant", "subject"])
    op.create_table(
        "attempts",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("method", sa.String, primary_key=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("last_at", sa.Float, nullable=False),
        sa.Column("used_up", sa.Integer, nullable=False),
        _of_user(),
    )
    op.create_table(
        "backup_codes",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
        _of_user(),
    )
    op.create_index("backup_codes_of", "backup_codes", ["tenant", "subject"])
    op.create_table(
        "seen",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("history", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        sa.Column("user", sa.String, nullable=False),
        sa.Column("session", sa.String, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_index("events_at", "events", ["tenant", "at"])
    op.create_index("events_of", "events", ["tenant", "user", "at"])
    op.create_table(
        "kept",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("value", sa.LargeBinary),
        sa.Column("number", _NUMBER),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_index("kept_until", "kept", ["expires_at"])
