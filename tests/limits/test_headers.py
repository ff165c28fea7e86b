from __future__ import annotations

import re

from gateway.core.decision import Quota
from gateway.limits.headers import ratelimit_headers, retry_after
from tests.limits.conftest import limit


def test_as_in_the_draft() -> None:
    user = limit("per-user", ("user",), rate=30)
    address = limit("per-address", rate=100, window=3600.0)
    assert ratelimit_headers((Quota(user, True, 29, 1.2, 0.0), Quota(address, True, 99, 36.0, 0.0))) == [
        (b"RateLimit-Policy", b'"per-user";q=30;w=60, "per-address";q=100;w=3600'),
        (b"RateLimit", b'"per-user";r=29;t=2, "per-address";r=99;t=36'),
    ]


def test_refusals_say_when_rounded_up_and_the_longest_wait_wins() -> None:
    one, two, three = limit("a"), limit("b"), limit("c")
    headers = dict(
        ratelimit_headers(
            (Quota(one, False, 0, 60.0, 2.01), Quota(two, False, 0, 60.0, 17.2), Quota(three, True, 1, 60.0, 99.0))
        )
    )
    assert headers[b"Retry-After"] == b"18"


def test_retry_after_is_never_zero() -> None:
    assert [retry_after(seconds) for seconds in (0.0, 0.0001, 1.0, 1.0001)] == [1, 1, 1, 2]


def test_no_limits_no_headers() -> None:
    assert ratelimit_headers(()) == []


def test_names_stay_inside_their_string() -> None:
    """RFC 9651, section 3.3.3: only `"` and `\\` are escaped, nothing but printable ASCII."""
    for name, spelled in (('a"b', rb'"a\"b"'), ("a\\", rb'"a\\"'), ("a\r\nX: y", b'"a??X: y"'), ("größe", b'"gr??e"')):
        policy = dict(ratelimit_headers((Quota(limit(name), True, 1, 1.0, 0.0),)))[b"RateLimit-Policy"]
        assert policy == spelled + b";q=3;w=60"
        assert re.fullmatch(rb"[\x20-\x7e]*", policy)


def test_limits_in_shadow_and_those_nobody_counted_are_not_told() -> None:
    real, watched, uncounted = limit("real"), limit("watched"), limit("uncounted")
    told = Quota(real, True, 2, 20.0, 0.0)
    others = Quota(watched, False, 0, 60.0, 60.0, "shadow"), Quota(uncounted, True, 0, 0.0, 0.0, "away")
    alone = ratelimit_headers((told,))
    assert [name for name, _ in alone] == [b"RateLimit-Policy", b"RateLimit"]
    for quotas in ((told, *others), (*others, told), (others[0], told, others[1])):
        for _ in range(2):
            assert ratelimit_headers(quotas) == alone
    assert ratelimit_headers(others) == []
