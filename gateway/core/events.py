"""What a security officer wants to know about: one closed list of kinds, one shape for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from gateway.core.identity import DEFAULT_TENANT, Identity


class Severity(IntEnum):
    """How loud."""

    INFO = 0
    NOTICE = 1
    WARNING = 2
    ALARM = 3


class Kind(StrEnum):
    """What happened."""

    SIGN_IN = "sign_in"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_THROTTLED = "sign_in_throttled"
    SESSION_LIMIT = "session_limit"
    SIGN_OUT = "sign_out"
    SESSION_ENDED = "session_ended"
    SESSIONS_ENDED = "sessions_ended"
    STEP_UP_ASKED = "step_up_asked"
    STEP_UP_PASSED = "step_up_passed"
    STEP_UP_FAILED = "step_up_failed"
    STEP_UP_THROTTLED = "step_up_throttled"
    STEP_UP_GUESSED = "step_up_guessed"
    FACTOR_ENROLLED = "factor_enrolled"
    FACTOR_REMOVED = "factor_removed"
    FACTOR_DISABLED = "factor_disabled"
    FACTOR_REFUSED = "factor_refused"
    FACTOR_COPIED = "factor_copied"
    MFA_REQUIRED = "mfa_required"
    MFA_REQUIREMENT_LIFTED = "mfa_requirement_lifted"
    CODE_SENT = "code_sent"
    CODE_REFUSED = "code_refused"
    BACKUP_CODE_USED = "backup_code_used"
    BACKUP_CODES_MADE = "backup_codes_made"
    TRUSTED_DEVICE_ADDED = "trusted_device_added"
    TRUSTED_DEVICE_USED = "trusted_device_used"
    TRUSTED_DEVICE_REVOKED = "trusted_device_revoked"
    TRUSTED_DEVICE_STOLEN = "trusted_device_stolen"
    RECOVERY_ASKED = "recovery_asked"
    RECOVERY_READY = "recovery_ready"
    RECOVERY_ENDED = "recovery_ended"
    RECOVERY_FAILED = "recovery_failed"
    RECOVERED = "recovered"
    REFUSED = "refused"
    THROTTLED = "throttled"
    REQUEST_REJECTED = "request_rejected"
    RISK_FLAGGED = "risk_flagged"
    RESUMED = "resumed"
    RESUME_REFUSED = "resume_refused"
    STREAM_CUT = "stream_cut"
    USER_ADDED = "user_added"
    USER_DISABLED = "user_disabled"
    USER_ENABLED = "user_enabled"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a name, not a secret
    ADDRESS_CHANGED = "address_changed"
    ADDRESS_CONFIRMED = "address_confirmed"
    NOTIFICATION_FAILED = "notification_failed"
    MESSAGE_UNDELIVERED = "message_undelivered"
    ADDRESS_SUPPRESSED = "address_suppressed"
    ADDRESS_RELEASED = "address_released"
    CALLBACK_REFUSED = "callback_refused"
    BACKUP_CODES_FEW = "backup_codes_few"
    FACTOR_SINGLE = "factor_single"
    MFA_DUE = "mfa_due"
    NOTICES_CHOSEN = "notices_chosen"
    KEY_ROTATED = "key_rotated"
    KEY_RETIRED = "key_retired"
    LIMIT_RESET = "limit_reset"
    POLICY_LOADED = "policy_loaded"
    POLICY_REJECTED = "policy_rejected"
    UPSTREAM_DOWN = "upstream_down"
    UPSTREAM_UP = "upstream_up"
    LOOP_LATE = "loop_late"
    OVERLOADED = "overloaded"
    FAULT = "fault"
    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request comes from, as events tell it."""

    address: str = ""
    agent: str = ""
    request_id: str = ""

    def event(
        self,
        kind: Kind,
        severity: Severity = Severity.INFO,
        *,
        who: Identity | None = None,
        tenant: str = DEFAULT_TENANT,
        user: str = "",
        rule: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """What happened, to a request from here of `who`; where nobody is known, to `user` of `tenant`."""
        session = ""
        if who is not None:
            tenant, user, session = who.tenant, who.user, who.session_id
        return Event(
            kind, severity, tenant, user, session, self.address, self.agent, self.request_id, rule, detail or {}
        )


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at` 0.0 means: when the ledger takes it."""

    kind: Kind
    severity: Severity = Severity.INFO
    tenant: str = DEFAULT_TENANT
    user: str = ""
    session: str = ""
    address: str = ""
    agent: str = ""
    request_id: str = ""
    rule: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only; never a secret."""
    at: float = 0.0
