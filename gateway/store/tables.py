"""What the database keeps. Every row carries its tenant; times are seconds since the epoch, UTC.

Nothing here opens anything by itself: session tokens and backup codes are digests, factor secrets are sealed with keys
that are kept elsewhere, passwords are argon2id hashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
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
    false,
    text,
)
from sqlalchemy import types as sql

if TYPE_CHECKING:
    from sqlalchemy import Dialect

SCHEMA_VERSION = 15
"""Grows with every change of a table; each has its file in `migrations`."""
COMPATIBLE = 1
"""The oldest schema whose programs can work with this one: tables only ever grow, by columns with a default."""

metadata = MetaData()

Number = BigInteger().with_variant(Integer(), "sqlite")
"""A whole number of 64 bit; SQLite has no other, and counts up by itself only in what is called INTEGER."""


class Text(sql.TypeDecorator[str]):
    """Text that every database takes. What none can hold (NUL, half a surrogate) is replaced by U+FFFD, so that asking
    for it finds nothing instead of failing.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """On its way to the database."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", Number, nullable=False),
)
"""`schema`: the version of these tables. `compatible`: the oldest whose programs can work with them.
`revision`: grows when users, sessions or factors change, so that other processes on the same database notice.
`sealed_by`: the master key that sealed its secrets."""

users = Table(
    "users",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("name", Text, nullable=False),  # canonical, see identity.users
    Column("email", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("groups", JSON, nullable=False),  # a sorted list
    Column("password", Text, nullable=False),  # argon2id, in its PHC string
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    # grows when every session of theirs is void: disabled, another password, ended everywhere
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("mfa_required_from", Float),  # from when on they must have a second factor, by somebody's word
    # told of nothing but changes to the security of their account
    Column("quiet", Boolean, nullable=False, server_default=false()),
    Column("preferred_factor", Text, nullable=False, server_default=text("''")),  # asked for first; empty: none
    Column("language", Text, nullable=False, server_default=text("''")),  # of what is written to them; empty: unknown
    # the address they are known to read, and since when: whatever changes `email` leaves that one unconfirmed
    Column("email_confirmed", Text, nullable=False, server_default=text("''")),
    Column("email_confirmed_at", Float),
    UniqueConstraint("tenant", "name"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),  # SHA-256 of the token
    Column("version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    Column("proofs", JSON, nullable=False),  # [[factor, at], …], oldest first; core.identity.proof_as_kept
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column(
        "rested", Float, nullable=False, server_default=text("0")
    ),  # seconds: the longest pause since the last proof
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("sessions_of", "tenant", "subject", "created_at"),
)

factors = Table(
    "factors",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("kind", Text, nullable=False),  # `totp` …
    Column("label", Text, nullable=False),
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
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("tries", Integer, nullable=False),  # in the present run
    Column("last_at", Float, nullable=False),
    Column("used_up", Integer, nullable=False),  # runs, since the last right answer
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
)

demanded = Table(
    "demanded",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("demand", Text, primary_key=True),  # what the configuration demands of them; mfa.demands
    Column("since", Float, nullable=False),  # when they were first seen while it did
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
)

backup_codes = Table(
    "backup_codes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("digest", Text, nullable=False),  # a keyed MAC
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("backup_codes_of", "tenant", "subject"),
)

trusted_devices = Table(
    "trusted_devices",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("series", LargeBinary, nullable=False, unique=True),  # SHA-256 of what all tokens of this browser begin with
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the token that counts
    Column("spent", LargeBinary),  # SHA-256 of the one before
    Column("salt", LargeBinary),  # with the one before, makes the one that counts
    Column("spent_at", Float),
    Column("spent_by", LargeBinary),  # SHA-256 of the browser's random name
    Column("generation", Integer, nullable=False),  # `users.generation` when it was made
    Column("created_at", Float, nullable=False),  # and a second factor was shown
    Column("expires_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("sessions", JSON, nullable=False),  # ids of those opened with it, the newest last
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("trusted_devices_of", "tenant", "subject", "created_at"),
    Index("trusted_devices_until", "expires_at"),
)

recoveries = Table(
    "recoveries",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True, unique=True),
    Column("subject", Text, nullable=False),
    Column("way", Text, nullable=False),  # email, administrators
    Column("state", Text, nullable=False),  # see mfa.recovery
    Column("outcome", Text, nullable=False),  # of one that is over
    Column("reason", Text, nullable=False),  # an administrator's
    Column("generation", Integer, nullable=False),  # `users.generation` when it was asked for
    Column("asked_at", Float, nullable=False),
    Column("asked_by", Text, nullable=False),  # the administrator's subject; empty: the user's own
    Column("due_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("cancel", Text, nullable=False),  # keyed MACs of what the links hold
    Column("link", Text),  # while there is one that counts
    Column("settled_at", Float),
    Column("settled_by", Text, nullable=False),  # the name of the administrator who did it
    ForeignKeyConstraint(["tenant", "subject"], ["users.tenant", "users.subject"], ondelete="CASCADE"),
    Index("recoveries_of", "tenant", "subject", "asked_at"),
    Index("recoveries_open", "state", "due_at"),
)

seen = Table(
    "seen",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("history", JSON, nullable=False),  # what the risk signals remember of this user
    Column("updated_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("user", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Index("events_at", "tenant", "at"),
    Index("events_of", "tenant", "user", "at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("token", Text, nullable=False, unique=True),  # what others know this message by
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),  # whom it is for; they may be gone meanwhile
    Column("channel", Text, nullable=False),  # `email`, `sms`
    Column("target", Text, nullable=False),  # their address, when it was written; masked once it is settled
    Column("kind", Text, nullable=False),
    Column("content", JSON, nullable=False),  # what the template is given, until it is settled; nothing secret
    Column("state", Text, nullable=False),  # waiting, sending, sent, failed
    Column("tries", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),  # while it is being sent: until when whoever sends it is waited for
    Column("expires_at", Float, nullable=False),
    Column("settled_at", Float),
    Column("via", Text, nullable=False, server_default=text("''")),  # the sender that took it over
    Column("sealed", LargeBinary),  # a code, until it is settled; see mfa.posted
    Column("reference", Text, nullable=False, server_default=text("''")),  # what that sender calls it
    Column("delivery", Text, nullable=False, server_default=text("''")),  # what it told later: core.message.Outcome
    Column("whose", Text, nullable=False, server_default=text("''")),  # a MAC of the address, once it was claimed
    Column("address", LargeBinary),  # the address, sealed, once it is settled; see mfa.addressees
    Index("outbox_due", "state", "due_at"),
    Index("outbox_to", "target", "kind", "state"),
    Index("outbox_of", "tenant", "subject", "kind", "state"),
    Index("outbox_known_as", "via", "reference"),
    Index("outbox_whose", "whose", "kind", "state"),
)

code_sends = Table(
    "code_sends",
    metadata,
    Column("tenant", Text, primary_key=True),  # empty for addresses, which are the same whoever sends there
    Column("whose", Text, primary_key=True),  # a user, or the MAC of an address; see mfa.codes.sends
    Column("sent", JSON, nullable=False),  # [[at, bound], …], oldest first
    Column("expires_at", Float, nullable=False),
    Index("code_sends_until", "expires_at"),
)

suppressed = Table(
    "suppressed",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("target", Text, primary_key=True),  # an address that nothing is sent to
    Column("why", Text, nullable=False),  # bounced, complained
    Column("at", Float, nullable=False),
    Column("mailbox", Text, nullable=False, server_default=text("''")),  # what is compared; see suppressed_table
    Index("suppressed_mailbox", "tenant", "channel", "mailbox"),
)

kept = Table(
    "kept",
    metadata,
    Column("key", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("value", LargeBinary),
    Column("number", Number),  # for counters, which have no value
    Column("expires_at", Float, nullable=False),
    Index("kept_until", "expires_at"),
)
