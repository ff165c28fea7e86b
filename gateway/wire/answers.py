"""What we say ourselves: problem details (RFC 9457) to machines, pages and redirects to browsers.

Every refusal has a status, a stable code (`ERR-` and the reason), a sentence for people and the request's id. Bearer
challenges follow RFC 6750, those for step-up RFC 9470.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from http import HTTPStatus
from math import ceil
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from gateway.core.decision import Decision, Refuse, SignIn, StepUp, Throttle
from gateway.core.facts import Facts
from gateway.core.page_headers import HEADERS
from gateway.core.reasons import Reason
from gateway.core.rule import StepUpDemand
from gateway.core.words import say

Header = tuple[bytes, bytes]


class ErrorPages(Protocol):
    """Makes an HTML document for whoever sent a request; `action` is `(label, path)` of a way on."""

    def __call__(
        self,
        facts: Facts,
        status: int,
        code: str,
        title: str,
        detail: str,
        request_id: str,
        /,
        *,
        action: tuple[str, str] | None = None,
    ) -> tuple[bytes, str]:
        """The document, and its language. As `title` the status' own phrase, for which a better one may be found."""
        ...


class ErrorPage(Protocol):
    """`ErrorPages` for one request."""

    def __call__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        request_id: str,
        /,
        *,
        action: tuple[str, str] | None = None,
    ) -> tuple[bytes, str]:
        """As that."""
        ...


def page_for(pages: ErrorPages | None, facts: Facts | None) -> ErrorPage | None:
    """Who makes a page for whoever sent `facts`; None where there are no pages, or nobody looks at one."""
    return None if pages is None or facts is None or not is_navigation(facts) else partial(pages, facts)


REFUSALS: dict[Reason, tuple[int, str]] = {
    Reason.BAD_REQUEST: (400, say("The request is not valid HTTP/1.1.")),
    Reason.BAD_TARGET: (400, say("The address is malformed or has more than one meaning.")),
    Reason.BAD_HOST: (400, say("The request does not name exactly one valid host.")),
    Reason.METHOD_NOT_ALLOWED: (405, say("This method is not carried here.")),
    Reason.EXPECTATION_FAILED: (417, say("The only expectation understood here is 100-continue.")),
    Reason.HEAD_TOO_LARGE: (431, say("The request headers are too large.")),
    Reason.TARGET_TOO_LONG: (414, say("The address is too long.")),
    Reason.BODY_TOO_LARGE: (413, say("The request body is too large.")),
    Reason.VERSION_NOT_SUPPORTED: (505, say("Only HTTP/1.0 and HTTP/1.1 are spoken here.")),
    Reason.TIMED_OUT: (408, say("The request did not arrive in time.")),
    Reason.UNTRUSTED_PROXY: (403, say("Only a proxy that is trusted may ask this.")),
    Reason.ORIGINAL_UNCLEAR: (400, say("The proxy does not name exactly one request.")),
    Reason.IDENTITY_CLAIMED: (400, say("The request says who sends it in a header that only we may set.")),
    Reason.BAD_PROXY_HEADER: (400, say("The connection does not begin with the PROXY header of a trusted proxy.")),
    Reason.UPSTREAM_UNREACHABLE: (502, say("The service behind this address cannot be reached.")),
    Reason.UPSTREAM_INVALID: (502, say("The service behind this address gave an invalid answer.")),
    Reason.UPSTREAM_TIMED_OUT: (504, say("The service behind this address did not answer in time.")),
    Reason.UPSTREAM_BUSY: (503, say("The service behind this address is busy.")),
    Reason.UPSTREAM_CIRCUIT_OPEN: (503, say("The service behind this address is given a rest. Try again in a while.")),
    Reason.MFA_ENROL: (403, say("Your account must have a second factor. Set one up first.")),
    Reason.NO_RULE: (403, say("Nothing here is open to you.")),
    Reason.NOT_ALLOWED: (403, say("You are not allowed to see this.")),
    Reason.RISK_REFUSED: (403, say("This request looks too unlike you. Try from a device and network you use often.")),
    Reason.CROSS_SITE: (403, say("A page of another site asked for this.")),
    Reason.RATE_LIMITED: (429, say("Too many requests. Wait a little, then try again.")),
    Reason.OVERLOADED: (503, say("Too much is going on here. Try again in a little while.")),
    Reason.STORE_AWAY: (503, say("We cannot count requests right now. Try again in a little while.")),
    Reason.FAULT: (503, say("Something went wrong on our side. Nothing was let through.")),
}
"""Reason → status and sentence, which pages put into the language of whoever looks at them; programs get English."""

PAGE_HEADERS: tuple[Header, ...] = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


SOON = frozenset((Reason.UPSTREAM_BUSY, Reason.OVERLOADED, Reason.STORE_AWAY))
"""It may be otherwise in a second."""


def code_of(reason: Reason) -> str:
    """The stable error code of a reason: `ERR-NO-RULE` …"""
    return "ERR-" + reason.value.upper().replace("_", "-")


def is_navigation(facts: Facts) -> bool:
    """Whether a browser is taking a person to this address (as opposed to a script or a program asking)."""
    mode = facts.header(b"sec-fetch-mode")
    if mode:
        return mode == [b"navigate"]
    if facts.header(b"x-requested-with"):
        return False
    return any(b"text/html" in value for value in facts.header(b"accept"))


def challenge(demand: StepUpDemand | None, error: str | None, description: str = "") -> bytes:
    """A `WWW-Authenticate` value."""
    parts = ['Bearer realm="sallyport"']
    if error:
        parts += [f'error="{error}"', f'error_description="{description}"']
    if demand is not None:
        parts.append(f'acr_values="{demand.level.acr}"')
        if demand.max_age is not None:
            parts.append(f'max_age="{int(demand.max_age)}"')
    return ", ".join(parts).encode("ascii")


def problem(
    status: int, reason: Reason, detail: str, request_id: str, extra: dict[str, Any] | None = None
) -> tuple[int, list[Header], bytes]:
    """Problem details."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code_of(reason),
        "request_id": request_id,
        **(extra or {}),
    }
    return status, [(b"Content-Type", b"application/problem+json"), (b"Cache-Control", b"no-store")], orjson.dumps(body)


def refusal(
    reason: Reason,
    request_id: str,
    page: ErrorPage | None,
    status: int | None = None,
    *,
    retry_after: float = 0.0,
    action: tuple[str, str] | None = None,
) -> tuple[int, list[Header], bytes]:
    """A refusal for `reason`: a page where `page` is given, problem details otherwise.

    `retry_after`: seconds; `action`: a way on, for the page.
    """
    usual, detail = REFUSALS[reason]
    status = status or usual
    retry_after = retry_after or (1.0 if reason in SOON else 0.0)
    more: list[Header] = [(b"Retry-After", b"%d" % ceil(retry_after))] if retry_after else []
    if page is None:
        status, headers, body = problem(status, reason, detail, request_id)
        return status, [*headers, *more], body
    html, language = page(status, code_of(reason), HTTPStatus(status).phrase, detail, request_id, action=action)
    return (
        status,
        [
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Language", language.encode()),
            (b"Vary", b"Accept-Language, Cookie"),
            (b"Cache-Control", b"no-store"),
            *PAGE_HEADERS,
            *more,
        ],
        html,
    )


def unauthorized(decision: SignIn | StepUp, request_id: str, prefix: str = "") -> tuple[int, list[Header], bytes]:
    """401 for a program: who are you, or prove it again. `prefix`: where our pages are; empty: there are none."""
    demand = decision.demand
    if isinstance(decision, StepUp):
        detail = "This needs a fresher or stronger proof than the session has."
        header = challenge(demand, "insufficient_user_authentication", detail)
    elif Reason.SESSION_TOO_OLD in decision.reasons:
        detail = "This needs a younger session. Sign in again."
        header = challenge(demand, "insufficient_user_authentication", detail)
    else:
        detail = "This needs somebody to be signed in."
        header = challenge(demand, None)
    extra: dict[str, Any] = {"reasons": list(decision.reasons)}
    if demand is not None:
        extra["acr_values"] = demand.level.acr
        if demand.max_age is not None:
            extra["max_age"] = int(demand.max_age)
        if demand.verified:
            extra["user_verification"] = "required"
    if prefix:
        extra["challenge"] = dialog_location(prefix, decision)
    status, headers, body = problem(401, decision.reasons[0], detail, request_id, extra)
    return status, [*headers, (b"WWW-Authenticate", header)], body


def denied(decision: Refuse | Throttle, request_id: str, page: ErrorPage | None) -> tuple[int, list[Header], bytes]:
    """403, 429 and what the gate refuses for its own faults."""
    status = 429 if isinstance(decision, Throttle) else decision.status
    return refusal(decision.reasons[0], request_id, page, status)


def owes_factor(decision: Decision) -> bool:
    """Whether somebody has to set up a second factor before they are let through."""
    return type(decision) is Refuse and decision.reasons[0] is Reason.MFA_ENROL


def enrol_first(request_id: str, prefix: str) -> tuple[int, list[Header], bytes]:
    """403 for a program: set up a second factor first. `prefix`: where our pages are; empty: there are none."""
    status, detail = REFUSALS[Reason.MFA_ENROL]
    ways = {"enrol": enrol_location(prefix), "challenge": f"{prefix}dialog"} if prefix else None
    return problem(status, Reason.MFA_ENROL, detail, request_id, ways)


def enrol_location(prefix: str, target: str = "", resume: str = "", lost: str = "") -> str:
    """Where to set up a second factor, and where to go on afterwards; `resume`, `lost`: as for `login_location`."""
    said = {"next": target, "resume": resume, "lost": lost}
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in said.items() if value)
    return f"{prefix}enrol-first?{asked}" if asked else f"{prefix}enrol-first"


def see_other(location: str, cookies: Iterable[str] = ()) -> tuple[int, list[Header], bytes]:
    """303 to one of our pages, or back to where somebody was going."""
    headers = [(b"Location", location.encode("ascii")), (b"Cache-Control", b"no-store")]
    headers += [(b"Set-Cookie", cookie.encode("ascii")) for cookie in cookies]
    return 303, [*headers, (b"Referrer-Policy", b"no-referrer")], b""


def referred(facts: Facts, origin: str) -> str:
    """The page of ours that a request came from, where it says so, else `/`. `origin`: `scheme://host[:port]`."""
    for referer in facts.header(b"referer"):
        text = referer.decode("latin-1")
        if text.startswith(f"{origin}/") and text.isascii():
            return text.removeprefix(origin)
    return "/"


def dialog_location(prefix: str, decision: SignIn | StepUp) -> str:
    """Where a script can have somebody prove what was asked for, in a window of its own.

    It says what is asked and holds no ticket: the question is put when the page is opened. So this answer changes
    nothing, however often a script, or a page elsewhere, asks for it.
    """
    asked = ["reauth=1"] if Reason.SESSION_TOO_OLD in decision.reasons else []
    if (demand := decision.demand) is not None:
        asked.append(f"acr_values={demand.level.acr}")
        if demand.max_age is not None:
            asked.append(f"max_age={int(demand.max_age)}")
        if demand.factors:
            asked.append(f"factors={','.join(sorted(demand.factors))}")
        if demand.verified:
            asked.append("user_verification=required")
    return f"{prefix}dialog?{'&'.join(asked)}" if asked else f"{prefix}dialog"


def login_location(prefix: str, target: str, decision: SignIn, resume: str = "", lost: str = "") -> str:
    """Where to sign in, and where to go on afterwards; whoever is signed in already has to do it all the same.

    `resume`: ticket of what was kept; `lost`: the word for why it could not be.
    """
    again = "reauth=1&" if Reason.SESSION_TOO_OLD in decision.reasons else ""
    location = f"{prefix}login?{again}next={quote(target, safe='')}"
    if lost:
        location += f"&lost={lost}"
    return f"{location}&resume={quote(resume, safe='')}" if resume else location


@cache
def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))


def encode(status: int, headers: Iterable[Header], body: bytes, *, close: bool, head_only: bool = False) -> bytes:
    """A whole answer in bytes. `head_only` keeps the length and leaves the body out (HEAD)."""
    lines = [status_line(status)]
    lines += [b"%s: %s\r\n" % header for header in headers]
    lines.append(b"Content-Length: %d\r\n" % len(body))
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    if not head_only:
        lines.append(body)
    return b"".join(lines)
