"""Times, amounts, browsers and factors in a few plain words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.core.agents import recognised
from gateway.core.errors import UserError
from gateway.core.words import Said, date, date_and_time, say, say_n, sentences

SOON: Final = 120.0
"""Seconds that somebody waits for before the page."""
DAY_LONG: Final = 43_200.0
"""Seconds from which on a time alone may be that of another day."""
MOST_MINUTES: Final = 120
"""From here on people count in hours."""
_UNITS: Final[tuple[tuple[float, float, Callable[[int], Said], Callable[[int], Said]], ...]] = (
    (
        60.0,
        1.0,
        lambda count: say_n("{count} second", "{count} seconds", count),
        lambda count: say_n("{count} second ago", "{count} seconds ago", count),
    ),
    (
        3600.0,
        60.0,
        lambda count: say_n("{count} minute", "{count} minutes", count),
        lambda count: say_n("{count} minute ago", "{count} minutes ago", count),
    ),
    (
        86_400.0,
        3600.0,
        lambda count: say_n("{count} hour", "{count} hours", count),
        lambda count: say_n("{count} hour ago", "{count} hours ago", count),
    ),
    (
        1e18,
        86_400.0,
        lambda count: say_n("{count} day", "{count} days", count),
        lambda count: say_n("{count} day ago", "{count} days ago", count),
    ),
)
"""Below so many seconds, in units of so many: how long, and how long ago."""

LOST = {
    "large": say(
        "What you were sending was too large to be kept, and did not arrive. Please send it again afterwards."
    ),
    "busy": say(
        "What you were sending could not be kept just now, and did not arrive. Please send it again afterwards."
    ),
    "elsewhere": say("A page of another site was sending something in your name. It was not kept, and did not arrive."),
}
"""Why what somebody was sending does not wait for them, by the word that the wire gives (`lost`)."""

_SENT = {
    "application/x-www-form-urlencoded": say("a form"),
    "multipart/form-data": say("a form with files"),
    "text/plain": say("plain text"),
    "application/json": say("data of an application"),
}


def sent(kind: str) -> Said:
    """`a form with files`, from a `Content-Type`."""
    return _SENT.get(kind.partition(";")[0].strip().lower(), say("something"))


def amount(size: int) -> Said:
    """`23 bytes`, `4.5 KB`, `12 MB`; for people."""
    if size < 1000:
        return say_n("{count} byte", "{count} bytes", size)
    thousands, unit = size / 1000, say("KB")
    if thousands >= 999.95:
        thousands, unit = thousands / 1000, say("MB")
    whole, _, tenths = f"{thousands:.1f}".partition(".")
    number = whole if tenths == "0" else say("{whole}.{tenths}", whole=whole, tenths=tenths)
    return say("{number} {unit}", number=number, unit=unit)


def ago(then: float, now: float) -> Said:
    """`just now`, `3 minutes ago`, `2 days ago`; both in seconds since the epoch."""
    passed = now - then
    if passed < 10:
        return say("just now")
    _, size, _, words = next(each for each in _UNITS if passed < each[0])
    return words(int(passed // size))


def later(then: float, now: float) -> Said:
    """`in 3 minutes`, `in 2 days`, rounded down; `now` where it is past. Both in seconds since the epoch."""
    left = then - now
    return say("in {time}", time=span(left)) if left >= 1 else say("now")


def span(seconds: float) -> Said:
    """`1 hour`, `15 minutes`: the largest unit of which there is a whole one, rounded down."""
    _, size, words, _ = next(each for each in _UNITS if seconds < each[0])
    return words(max(1, int(seconds // size)))


def wait(seconds: float, now: float) -> Said:
    """`Please wait 15 minutes, until 14:05 UTC.`: rounded up, for people; nothing where there is nothing to wait for.

    Until when is said where somebody may do something else meanwhile and come back to an old page; in UTC, for nobody
    tells us what their clock shows.
    """
    if seconds <= 0:
        return Said("", "", {})
    if seconds < SOON:
        return say("Please wait {time}.", time=wait_words(seconds))
    end = math.ceil((now + seconds) / 60) * 60.0
    at = moment(end) if seconds >= DAY_LONG else say("{time} UTC", time=f"{datetime.fromtimestamp(end, UTC):%H:%M}")
    return say("Please wait {time}, until {at}.", time=wait_words(seconds), at=at)


def said_of(error: UserError | None, now: float) -> str:
    """What a page says of `error`, and how long to wait; nothing where there is none."""
    return sentences(error.detail, wait(error.retry_after, now)) if error is not None else ""


def wait_words(seconds: float) -> Said:
    """`90` → `2 minutes`; rounded up, for people."""
    if seconds < 60:
        return span(max(1, math.ceil(seconds)))
    minutes = math.ceil(seconds / 60)
    if minutes > MOST_MINUTES:
        return say_n("{count} hour", "{count} hours", math.ceil(minutes / 60))
    return say_n("{count} minute", "{count} minutes", minutes)


def day(moment: float) -> Said:
    """`12 February 2027`, UTC; seconds since the epoch."""
    return date(datetime.fromtimestamp(moment, UTC))


def moment(at: float) -> Said:
    """`12 February 2027, 14:05 UTC`; seconds since the epoch."""
    return date_and_time(datetime.fromtimestamp(at, UTC))


def browser(agent: str) -> str:
    """`Firefox on Linux`, from a `User-Agent`; a guess for people to recognise, never for a decision."""
    return recognised(agent) or agent[:40] or say("Unknown browser")


_KINDS: Final[Mapping[str, Said]] = {
    "totp": say("Authenticator app"),
    "webauthn": say("Security key"),
    "sms": say("Phone number"),
    "email": say("E-mail address"),
}


def label(kind: str, given: str) -> str:
    """A factor's name for people."""
    return given or _KINDS.get(kind, kind)
