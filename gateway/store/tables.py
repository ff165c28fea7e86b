"""What the database keeps. Every row carries its tenant; times are seconds since the epoch, UTC.

Nothing here opens anything by itself: session tokens and backup codes are digests, factor secrets are sealed with keys
that are kept elsewhere, passwords are argon2id hashes.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
"""Grows with every change of a table."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
)
"""`schema`: the version of these tables. `revision`: grows when users, sessions or factors change, so that other
processes on the same database notice. `sealed_by`: the master key that sealed its secrets."""

users = Table(
    "users",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("name", String, nullable=False),  # canonical, see identity.users
    Column("email", String, nullable=False),
    Column("display_name", String, nullable=False),
    Column("groups", JSON, nullable=False),  # a sorted list
    Column("password", String, nullable=False),  # argon2id, in its PHC string
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),  # raised when all their sessions end
    UniqueConstraint("tenant", "name"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),  # SHA-256 of the token
    Column("version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    Column("proofs", JSON, nullable=False),  # [[factor, at], …], oldest first
    Column("address", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("rested", Float, nullable=False, server_default="0"),  # the longest pause since the last proof, seconds
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("sessions_of", "tenant", "subject", "created_at"),
)

factors = Table(
    "factors",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("kind", String, nullable=False),  # `totp` …
    Column("label", String, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("last_step", Integer, nullable=False),  # the newest time step that was claimed
    Column("refused_step", Integer, nullable=False),  # a future time step whose code was given away by a hint
    Column("failures", Integer, nullable=False),  # in a row; see mfa.attempts for when it is out of use
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("factors_of", "tenant", "subject"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("method", String, primary_key=True),
    Column("tries", Integer, nullable=False),  # in the present run
    Column("last_at", Float, nullable=False),
    Column("used_up", Integer, nullable=False),  # runs, since the last right answer
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
)

backup_codes = Table(
    "backup_codes",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("digest", String, nullable=False),  # a keyed MAC
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("backup_codes_of", "tenant", "subject"),
)

seen = Table(
    "seen",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("history", JSON, nullable=False),  # what the risk signals remember of this user
    Column("updated_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("user", String, nullable=False),
    Column("session", String, nullable=False),
    Column("address", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("detail", JSON, nullable=False),
    Index("events_at", "tenant", "at"),
    Index("events_of", "tenant", "user", "at"),
)

kept = Table(
    "kept",
    metadata,
    Column("key", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("value", LargeBinary),
    Column("number", Integer),  # for counters, which have no value
    Column("expires_at", Float, nullable=False),
    Index("kept_until", "expires_at"),
)
