"""Where a browser's request comes from, as far as it says so (RFC 6454)."""

from __future__ import annotations

from gateway.audit.refusals import refusal
from gateway.core.contracts import Ledger
from gateway.core.decision import Refuse, Verdict
from gateway.core.facts import Facts
from gateway.core.reasons import Reason
from gateway.wire import authority
from gateway.wire.authority import BadAuthority


def refuse_cross_site(facts: Facts, verdict: Verdict, ledger: Ledger) -> bool:
    """Whether a page of another site would open a socket with somebody's cookie (RFC 6455, section 10.2).

    The verdict is a refusal then, and noted.
    """
    if verdict.identity is None or verdict.identity.session is None:
        return False
    if comes_from_us(facts, verdict.rule.origins if verdict.rule is not None else frozenset()):
        return False
    verdict.decision = Refuse((Reason.CROSS_SITE,))
    ledger.note(refusal(facts, verdict))
    return True


def comes_from_us(facts: Facts, also: frozenset[bytes]) -> bool:
    """Whether the page that asks is of the site it asks or of one of `also`, or no browser's at all."""
    origins = facts.header(b"origin")
    if not origins:
        return True
    if len(origins) == 1 and origins[0].lower() in also:
        return True
    scheme, separator, named = origins[0].partition(b"://")
    if len(origins) > 1 or not separator or scheme.lower() != facts.scheme.encode():
        return False
    try:
        where = authority.parse(named, facts.scheme)
    except BadAuthority:
        return False
    return (where.host, where.port) == (facts.host, facts.port)
