"""What became of a request at the gate, as an event."""

from __future__ import annotations

from gateway.core.decision import Throttle, Verdict
from gateway.core.events import Event, Kind, Severity
from gateway.core.facts import Facts
from gateway.core.identity import DEFAULT_TENANT
from gateway.core.reasons import Reason


def refusal(facts: Facts, verdict: Verdict) -> Event:
    """The event of a refused or throttled request; one that met a fault of ours is an alarm."""
    decision = verdict.decision
    kind = Kind.THROTTLED if isinstance(decision, Throttle) else Kind.REFUSED
    if decision.reasons[0] is Reason.FAULT:
        kind = Kind.FAULT
    severity = Severity.ALARM if kind is Kind.FAULT else Severity.NOTICE
    return about(facts, verdict, kind, severity, reason=decision.reasons[0].value)


def about(facts: Facts, verdict: Verdict, kind: Kind, severity: Severity = Severity.INFO, **detail: str) -> Event:
    """An event about a request that was judged."""
    identity = verdict.identity
    return Event(
        kind,
        severity,
        tenant=identity.tenant if identity else DEFAULT_TENANT,
        user=identity.user if identity else "",
        session=identity.session.id if identity and identity.session else "",
        address=facts.address,
        agent=facts.agent,
        request_id=facts.request_id,
        rule=verdict.rule.name if verdict.rule else "",
        detail={**detail, "method": facts.method, "path": facts.path},
    )
