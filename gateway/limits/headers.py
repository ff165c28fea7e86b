"""How clients are told of their limits.

`RateLimit-Policy` and `RateLimit` are structured fields (RFC 9651) as in draft-ietf-httpapi-ratelimit-headers-10: a
list with one item for each limit, its name as a string; `q` per `w` seconds allowed, `r` left now, whole again
after `t` seconds. `pk`, the partition, is not sent: it would tell what a limit counts by. `Retry-After` (RFC 9110,
section 10.2.3) is what a client that was refused has to obey; it is rounded up, so that coming back then works.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from gateway.core.decision import Quota
from gateway.core.rule import LimitSpec


def ratelimit_headers(quotas: Sequence[Quota]) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` for `quotas`; and `Retry-After`, when one of them refused."""
    if not quotas:
        return []
    policies = []
    states = []
    waits = []
    for limit, allowed, remaining, reset, wait in quotas:
        spelled = _spelled.get(id(limit))
        if spelled is None or spelled[0] is not limit:
            spelled = _spell(limit)
        policies.append(spelled[1])
        states.append(b"%b;r=%d;t=%d" % (spelled[2], remaining, ceil(reset)))
        if not allowed:
            waits.append(wait)
    headers = [(b"RateLimit-Policy", b", ".join(policies)), (b"RateLimit", b", ".join(states))]
    if waits:
        headers.append((b"Retry-After", b"%d" % retry_after(max(waits))))
    return headers


def ratelimit_lines(quotas: Sequence[Quota]) -> bytes:
    """The same as header lines, each ended."""
    return b"".join([b"%b: %b\r\n" % header for header in ratelimit_headers(quotas)])


def retry_after(seconds: float) -> int:
    """`seconds` as `Retry-After` gives them: whole, rounded up, at least 1."""
    return max(1, ceil(seconds))


_spelled: dict[int, tuple[LimitSpec, bytes, bytes]] = {}
"""Limits already spelled, by their id (hashing one would cost more than writing the header)."""


def _spell(limit: LimitSpec) -> tuple[LimitSpec, bytes, bytes]:
    """The limit, its policy, and its name as a structured field string: printable ASCII, `"` and `\\` escaped."""
    text = "".join(char if " " <= char <= "~" else "?" for char in limit.name)
    name = b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'
    if len(_spelled) >= 4096:
        _spelled.clear()
    spelled = _spelled[id(limit)] = (limit, b"%b;q=%d;w=%d" % (name, limit.rate, max(1, round(limit.window))), name)
    return spelled
