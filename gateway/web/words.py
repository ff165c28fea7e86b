"""Times, browsers and factors in a few plain words."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.agents import recognised

_UNITS = ((60.0, 1.0, "second"), (3600.0, 60.0, "minute"), (86_400.0, 3600.0, "hour"), (1e18, 86_400.0, "day"))


LOST = {
    "large": "What you were sending was too large to be kept, and did not arrive. Please send it again afterwards.",
    "busy": "What you were sending could not be kept just now, and did not arrive. Please send it again afterwards.",
    "elsewhere": "A page of another site was sending something in your name. It was not kept, and did not arrive.",
}
"""Why what somebody was sending does not wait for them, by the word that the wire gives (`lost`)."""

_SENT = {
    "application/x-www-form-urlencoded": "a form",
    "multipart/form-data": "a form with files",
    "text/plain": "plain text",
    "application/json": "data of an application",
}


def sent(kind: str) -> str:
    """`a form with files`, from a `Content-Type`."""
    return _SENT.get(kind.partition(";")[0].strip().lower(), "something")


def amount(size: int) -> str:
    """`23 bytes`, `4.5 KB`, `12 MB`; for people."""
    if size < 1000:
        return f"{size} byte{'s' if size != 1 else ''}"
    thousands = size / 1000
    unit = "KB"
    if thousands >= 999.95:
        thousands, unit = thousands / 1000, "MB"
    return f"{thousands:.1f} {unit}".replace(".0 ", " ")


def ago(then: float, now: float) -> str:
    """`just now`, `3 minutes ago`, `2 days ago`; both in seconds since the epoch."""
    passed = now - then
    if passed < 10:
        return "just now"
    for below, size, unit in _UNITS:
        if passed < below:
            count = int(passed // size)
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "long ago"


def later(then: float, now: float) -> str:
    """`in 3 minutes`, `in 2 days`, rounded down; `now` where it is past. Both in seconds since the epoch."""
    left = then - now
    return f"in {span(left)}" if left >= 1 else "now"


def span(seconds: float) -> str:
    """`1 hour`, `15 minutes`: the largest unit of which there is a whole one, rounded down."""
    _, size, unit = next(each for each in _UNITS if seconds < each[0])
    count = max(1, int(seconds // size))
    return f"{count} {unit}{'s' if count != 1 else ''}"


def day(moment: float) -> str:
    """`12 February 2027`, UTC; seconds since the epoch."""
    return datetime.fromtimestamp(moment, UTC).strftime("%d %B %Y").lstrip("0")


def moment(at: float) -> str:
    """`12 February 2027, 14:05 UTC`; seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def browser(agent: str) -> str:
    """`Firefox on Linux`, from a `User-Agent`; a guess for people to recognise, never for a decision."""
    return recognised(agent) or (agent[:40] or "Unknown browser")


_KINDS = {
    "totp": "Authenticator app",
    "webauthn": "Security key",
    "sms": "Phone number",
    "email": "E-mail address",
}


def label(kind: str, given: str) -> str:
    """A factor's name for people."""
    return given or _KINDS.get(kind, kind)
