"""Why the gate answered as it did: one closed list, the same word in logs, metrics, events, problems and docs."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A word for why. A decision carries one or more."""

    # allowed
    PUBLIC = "public"
    """The rule lets anybody in."""
    GRANTED = "granted"
    """The caller is who the rule asks for, proven well enough."""

    # who are you?
    NO_SESSION = "no_session"
    """The rule wants somebody, and nobody is signed in."""
    SESSION_ENDED = "session_ended"
    """A session cookie came, but its session is over, revoked, unknown or ambiguous."""
    SESSION_TOO_OLD = "session_too_old"
    """The session is good, but older, or longer at rest, than the rule lets it be."""

    # prove it again
    LEVEL_TOO_LOW = "level_too_low"
    """The session's assurance level is below the rule's."""
    FACTOR_NOT_ACCEPTED = "factor_not_accepted"
    """The session was proven with a factor the rule does not count."""
    PROOF_TOO_OLD = "proof_too_old"
    """The proof is older than the rule's `max_age`."""
    RISK_STEP_UP = "risk_step_up"
    """The risk score reached the rule's `step_up_at`."""

    MFA_ENROL = "mfa_enrol"
    """The caller must have a second factor, and has to set one up before anything else."""

    # no
    NO_RULE = "no_rule"
    """No rule matches; what no rule allows is refused."""
    NOT_ALLOWED = "not_allowed"
    """The rule does not let this caller in."""
    RISK_REFUSED = "risk_refused"
    """The risk score reached the rule's `refuse_at`."""
    CROSS_SITE = "cross_site"
    """A page of another site opens a WebSocket with the session of whoever reads it."""
    RATE_LIMITED = "rate_limited"
    """A limit of the rule is used up."""
    STORE_AWAY = "store_away"
    """The store that counts for all replicas is away, and the limit says to refuse then."""
    FAULT = "fault"
    """Something of ours failed; a fault closes the gate."""

    # the request itself
    BAD_REQUEST = "bad_request"
    """The bytes are not one clear HTTP/1.1 request."""
    BAD_TARGET = "bad_target"
    """The request target is malformed, ambiguous or not in origin form."""
    BAD_HOST = "bad_host"
    """The host is missing, doubled or malformed."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """CONNECT, TRACE and TRACK are never carried."""
    EXPECTATION_FAILED = "expectation_failed"
    """`Expect` asks for something other than `100-continue`."""
    HEAD_TOO_LARGE = "head_too_large"
    """The request head is over its limit."""
    TARGET_TOO_LONG = "target_too_long"
    """The request target is over its limit."""
    BODY_TOO_LARGE = "body_too_large"
    """The request body is over its limit."""
    VERSION_NOT_SUPPORTED = "version_not_supported"
    """Only HTTP/1.0 and HTTP/1.1 are spoken here."""
    TIMED_OUT = "timed_out"
    """The client was too slow."""
    BAD_PROXY_HEADER = "bad_proxy_header"
    """A connection did not begin with the PROXY header of a trusted proxy."""

    # a proxy's question
    UNTRUSTED_PROXY = "untrusted_proxy"
    """Somebody who is no trusted proxy asks for a decision."""
    ORIGINAL_UNCLEAR = "original_unclear"
    """The proxy's headers do not name exactly one request: one is missing, comes twice, or contradicts another."""
    IDENTITY_CLAIMED = "identity_claimed"
    """The client sent a header that only the gateway may set, and it is not us who could drop it."""

    OVERLOADED = "overloaded"
    """More is going on than we can carry; nothing was looked at."""

    # the service behind
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    """No connection to the service could be made."""
    UPSTREAM_INVALID = "upstream_invalid"
    """The service's answer is not one clear HTTP response."""
    UPSTREAM_TIMED_OUT = "upstream_timed_out"
    """The service did not answer in time."""
    UPSTREAM_BUSY = "upstream_busy"
    """Every connection the service may have is taken."""
    UPSTREAM_CIRCUIT_OPEN = "upstream_circuit_open"
    """The service has failed too often; it is left alone for a while."""
