"""What the service is told about the caller.

Plain headers under the convention the operator picked, and `Sallyport-Assertion`: a JWT (RFC 7519, ES256) for the
rule's audience, so that a service can tell our word from anybody else's. Signing costs a hundred times what the rest
of a request costs, so an assertion is remembered for half of its lifetime, keyed by session, version, rule and risk:
a new proof or a new risk gets a new one by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.decision import Verdict
from gateway.core.identity import Identity
from gateway.core.rule import Rule
from gateway.crypto.tokens import new_token

STYLES: Mapping[str, tuple[bytes, bytes, bytes, bytes]] = {
    "x-forwarded": (
        b"X-Forwarded-User",
        b"X-Forwarded-Email",
        b"X-Forwarded-Groups",
        b"X-Forwarded-Preferred-Username",
    ),
    "remote": (b"Remote-User", b"Remote-Email", b"Remote-Groups", b"Remote-Name"),
}
"""Names for the user, e-mail address, groups, and what people call them."""

_LOGIN_NAME = b"X-Forwarded-Preferred-Username"
"""Not a display name, but the one of OpenID Connect Core 5.1 and of our assertion: services take it for an account."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_REMEMBERED = 8192

Sign = Callable[[Mapping[str, Any]], str]
_Key = tuple[str, int, Rule, float]


class IdentityHeaders:
    """Header lines for a verdict, remembered."""

    def __init__(self, sign: Sign, *, issuer: str, style: str, lifetime: float) -> None:
        self._sign = sign
        self._issuer = issuer
        self._names = STYLES[style]
        self._lifetime = lifetime
        self._blocks: dict[_Key, tuple[float, bytes]] = {}

    def lines(self, verdict: Verdict, now: float) -> bytes:
        """The header lines for this caller under this rule, each ended; empty for nobody. `now`: epoch seconds."""
        identity, rule = verdict.identity, verdict.rule
        if identity is None or identity.session is None or rule is None:
            return b""
        risk = round(verdict.risk.value, 2)
        key = (identity.session.id, identity.session.version, rule, risk)
        known = self._blocks.get(key)
        if known is not None and 0.0 <= known[0] - now <= self._lifetime:
            return known[1]
        if len(self._blocks) >= _REMEMBERED:
            self._blocks.clear()
        block = self._make(identity, rule, risk, now)
        self._blocks[key] = (now + self._lifetime / 2, block)
        return block

    def forget(self) -> None:
        """Sign everything anew from now on; for a change of keys or rules."""
        self._blocks.clear()

    def _make(self, identity: Identity, rule: Rule, risk: float, now: float) -> bytes:
        user, email, groups, name = self._names
        called = identity.user if name == _LOGIN_NAME else identity.name or identity.user
        pairs = [(user, identity.user), (email, identity.email), (name, called)]
        pairs.append((groups, ",".join(sorted(group.replace(",", "%2C") for group in identity.groups))))
        pairs.append((b"Sallyport-Assertion", self._sign(self.claims(identity, rule, risk, now))))
        return b"".join(b"%s: %s\r\n" % (key, _safe(value)) for key, value in pairs if value)

    def claims(self, identity: Identity, rule: Rule, risk: float, now: float) -> dict[str, Any]:
        """The assertion's claims (RFC 7519, RFC 9068 for `acr`, `amr`, `auth_time`)."""
        return {
            "iss": self._issuer,
            "aud": rule.audience or rule.upstream,
            "sub": identity.subject,
            "preferred_username": identity.user,
            "name": identity.name or identity.user,
            "email": identity.email,
            "groups": sorted(identity.groups),
            "tenant": identity.tenant,
            "acr": identity.level.acr,
            "amr": list(identity.amr),
            "auth_time": int(identity.auth_time),
            "sid": identity.session.id if identity.session else "",
            "risk": risk,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "jti": new_token(),
        }


def _safe(value: str) -> bytes:
    """One header value in UTF-8; control characters cannot be in it, whatever a directory holds."""
    return _UNSAFE.sub(" ", value).strip().encode("utf-8")
