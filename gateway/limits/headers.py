"""How clients are told of their limits.

`RateLimit-Policy` and `RateLimit` are structured fields (RFC 9651) as in draft-ietf-httpapi-ratelimit-headers-11: a
list with one item for each limit, its name as a string; `q` per `w` seconds allowed, `r` left now, whole again
after `t` seconds. `pk`, the partition, is not sent: it would tell what a limit counts by. `Retry-After` (RFC 9110,
section 10.2.3) is what a client that was refused has to obey; it is rounded up, so that coming back then works.

Limits in shadow are nobody's to obey, so they are not told; nor are those that nobody could count.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from gateway.core.decision import Quota
from gateway.core.rule import LimitSpec


def ratelimit_headers(quotas: Sequence[Quota]) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` for `quotas`; and `Retry-After`, when one of them refused."""
    lines = ratelimit_lines(quotas).splitlines()
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def ratelimit_lines(quotas: Sequence[Quota]) -> bytes:
    """The same as header lines, each ended; what does not change about a list of limits is spelled once."""
    if not quotas:
        return b""
    spelled = _spelled.get((id(quotas[0][0]), len(quotas)))
    if spelled is None:
        spelled = _spell(quotas)
    limits, lines = spelled
    numbers: list[int] = []
    wait = 0.0
    at = 0
    for limit, allowed, remaining, reset, retry, how in quotas:
        if how:
            return ratelimit_lines([quota for quota in quotas if not quota[5]])
        if limit is not limits[at]:
            _spell(quotas)
            return ratelimit_lines(quotas)
        at += 1  # noqa: SIM113 - enumerate would unpack twice
        numbers += (remaining, ceil(reset))
        if not allowed and retry >= wait:
            wait = retry or 1.0
    lines %= tuple(numbers)
    return lines + b"Retry-After: %d\r\n" % retry_after(wait) if wait else lines


def retry_after(seconds: float) -> int:
    """`seconds` as `Retry-After` gives them: whole, rounded up, at least 1."""
    return max(1, ceil(seconds))


_spelled: dict[tuple[int, int], tuple[tuple[LimitSpec, ...], bytes]] = {}
"""Lists of limits already spelled, by the id of the first and their number (hashing one would cost more than writing
the headers); which limits they are is looked at each time."""


def _spell(quotas: Sequence[Quota]) -> tuple[tuple[LimitSpec, ...], bytes]:
    """The limits, and their header lines with a place for each number that changes; remembered."""
    limits = tuple(quota[0] for quota in quotas)
    policies, states = [], []
    for limit in limits:
        name = _string(limit.name)
        policies.append(b"%b;q=%d;w=%d" % (name, limit.rate, max(1, round(limit.window))))
        states.append(name.replace(b"%", b"%%") + b";r=%d;t=%d")
    policy = b", ".join(policies).replace(b"%", b"%%")
    lines = b"RateLimit-Policy: " + policy + b"\r\nRateLimit: " + b", ".join(states) + b"\r\n"
    if len(_spelled) >= 4096:
        _spelled.clear()
    spelled = _spelled[id(limits[0]), len(limits)] = limits, lines
    return spelled


def _string(text: str) -> bytes:
    """A structured field string: printable ASCII, `"` and `\\` escaped."""
    shown = "".join(char if " " <= char <= "~" else "?" for char in text)
    return b'"' + shown.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'
