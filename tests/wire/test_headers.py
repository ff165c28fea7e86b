from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.headers import HOP_BY_HOP, Pass, is_our_cookie, nominated, way
from gateway.wire.identity_headers import STYLES

OURS = sorted(
    {name.decode("ascii") for names in STYLES.values() for name in names}
    | {"Sallyport-Assertion", "Sallyport-Client-Address", "Sallyport-Client-Network", "Sallyport-Scheme"}
    | {"Sallyport-Host", "Sallyport-Request-Id", "Sallyport-Anything", "X-Request-Id", "X-Real-IP", "Forwarded"}
    | {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"}
    | {"X-Forwarded-Uri", "X-Forwarded-Method", "X-Original-URL", "X-Original-URI", "X-Rewrite-URL"}
    | {"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Cert", "SSL-Client-Cert"}
    | {"X-SSL-Client-Cert", "X-SSL-Client-S-DN", "Ssl-Client-Verify", "X-Forwarded-Tls-Client-Cert-Info"}
    | {"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "Remote-Addr", "Remote-User"}
)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("sign", ["-", "_", ".", "~", "!", "'", "*", "+"])
@pytest.mark.parametrize("case", [str, str.lower, str.upper, str.swapcase], ids=["as-is", "lower", "upper", "swapped"])
def test_case_53_ours_are_dropped_in_every_spelling(name: str, sign: str, case: object) -> None:
    assert callable(case)
    assert way(case(name).replace("-", sign).encode("ascii")) is Pass.DROP


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP - {"connection", "transfer-encoding"}))
def test_hop_by_hop_headers_are_dropped(name: str) -> None:
    assert way(name.encode("ascii")) is Pass.DROP
    assert way(name.upper().encode("ascii")) is Pass.DROP
    assert way(name.replace("-", "_").encode("ascii")) is Pass.DROP


@pytest.mark.parametrize("name", b"Host Content-Length Cookie Transfer-Encoding Expect Connection".split())
def test_what_we_write_anew_is_read(name: bytes) -> None:
    assert way(name) is Pass.READ
    assert way(name.lower()) is Pass.READ


@pytest.mark.parametrize("name", b"Content_Length content.length Transfer_Encoding User_Agent Ho.st".split())
def test_a_folded_spelling_of_what_we_read_is_not_it(name: bytes) -> None:
    assert way(name) is (Pass.ON if name == b"Ho.st" else Pass.DROP)


@pytest.mark.parametrize("name", [b"Accept", b"X-Custom", b"Content-Type", b"Origin", b"If-None-Match", b"X_Custom"])
def test_the_rest_passes(name: bytes) -> None:
    assert way(name) is Pass.ON


@given(st.text("-_.!~*'+|^`#$%&abcXYZ019", min_size=1, max_size=30), st.sampled_from(OURS))
def test_a_judgement_is_the_same_for_every_folding(name: str, ours: str) -> None:
    """Whatever a service might turn into one of ours never passes, even where all signs are mixed."""
    spelled = "".join(
        name[i % len(name)] if c == "-" and not name[i % len(name)].isalnum() else c for i, c in enumerate(ours)
    )
    assert way(spelled.encode("ascii")) is Pass.DROP


@pytest.mark.parametrize(
    "name", [b"authorization", b"cookie", b"host", b"content-type", b"content-encoding", b"origin", b"user-agent"]
)
def test_case_55_end_to_end_headers_cannot_be_named_away(name: bytes) -> None:
    assert nominated([b"close, " + name.upper()]) == {b"close"}


def test_named_headers_are_found_over_several_lines() -> None:
    assert nominated([b"X-A , x-b", b",keep-alive,,"]) == {b"x-a", b"x-b", b"keep-alive"}


def test_a_service_cannot_set_our_cookies() -> None:
    ours = frozenset({b"sallyport"})
    assert is_our_cookie(b"sallyport=x; Path=/", ours)
    assert is_our_cookie(b" sallyport = x", ours)
    assert is_our_cookie(b"=sallyport=x; Path=/", ours), "a browser sends it back as `sallyport=x`"
    assert is_our_cookie(b" = sallyport=x", ours)
    assert not is_our_cookie(b"sallyport2=x", ours)
    assert not is_our_cookie(b"x=sallyport=", ours)
